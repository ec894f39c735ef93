"""How a run has come along: what a checkpoint holds beside the model, so that a resumed run goes on alike."""

from dataclasses import dataclass, field, replace

from esmm.config import TrainConfig
from esmm.data.schedule import Position


@dataclass(frozen=True)
class LogWindow:
    """Steps since the last line of the log.

    losses: summed losses of each rank, in the model's order. seconds: that they took; waited: for data, by
    all ranks.
    skipped: impressions that they should have had, but for row groups that could not be read.
    """

    steps: int = 0
    impressions: int = 0
    losses: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    skipped: int = 0


@dataclass(frozen=True)
class Progress:
    """best_auc, best_step: the best validation CTCVR AUC and the step it was reached at. since_best:
    validations since then. epoch_seconds: that the unfinished epoch has taken. skipped, epoch_skipped:
    impressions of the run and of the unfinished epoch, up to the last line of the log, that lay in row
    groups that could not be read. window: see `LogWindow`. validated: the step of the last validation, 0
    before any; None in checkpoints of before it was kept.
    """

    best_auc: float | None = None
    best_step: int | None = None
    since_best: int = 0
    epoch_seconds: float = 0.0
    skipped: int = 0
    epoch_skipped: int = 0
    window: LogWindow = field(default_factory=LogWindow)
    validated: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.window, dict):  # from JSON
            object.__setattr__(self, "window", LogWindow(**self.window))

    def after_validation(self, auc: float | None, step: int) -> "Progress":
        """One more validation; an AUC that is undefined is no better than any."""
        if auc is not None and (self.best_auc is None or auc > self.best_auc):
            return replace(self, validated=step, best_auc=auc, best_step=step, since_best=0)
        return replace(self, validated=step, since_best=self.since_best + 1)

    def without_best(self) -> "Progress":
        """The best validation no longer counts, as its checkpoint is not there."""
        return replace(self, best_auc=None, best_step=None, since_best=0)

    def owes_validation(self, config: TrainConfig, step: int) -> bool:
        """One is due between this step and the next, and has not been made."""
        due = config.validate_steps > 0 and step % config.validate_steps == 0
        return due and self.validated not in (None, step)

    def after_line(self, seconds: float, skipped: int) -> "Progress":
        """One more line of the log: what its steps took, and the impressions that they lacked."""
        return replace(
            self,
            epoch_seconds=self.epoch_seconds + seconds,
            skipped=self.skipped + skipped,
            epoch_skipped=self.epoch_skipped + skipped,
        )

    def has_stalled(self, patience: int) -> bool:
        """True when early stopping ends the run; patience 0: never."""
        return 0 < patience <= self.since_best

    def is_done(self, config: TrainConfig, position: Position) -> bool:
        """All epochs are trained, or early stopping has ended the run."""
        return position.epoch > config.epochs or self.has_stalled(config.early_stopping_patience)
