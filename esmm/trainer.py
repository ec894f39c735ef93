"""The steps of a run: train, log, validate, save checkpoints, stop."""

import logging
import math
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from esmm import learning_rate, save_checkpoint
from esmm.batch import Batch
from esmm.checkpoint import State
from esmm.config import Config
from esmm.data import Loader
from esmm.distributed import EXIT_STOPPED, AgreedError
from esmm.meter import Meter
from esmm.progress import Progress
from esmm.pulse import Pulse
from esmm.run_folder import RunFolder
from esmm.save_checkpoint import Origin
from esmm.schedule import Position
from esmm.scoring import validation_auc
from esmm.step import TrainStep

log = logging.getLogger(__name__)
TRY_SMALLER_RATES = (
    "Try a smaller optimizer.sparse.learning_rate or optimizer.dense.learning_rate. "
    "The last good checkpoint, if any, is left in the run folder."
)


class Trainer:
    """Trains a model on one loader and validates it on another, from where `state` says that it stands.

    path: of the run. folder: None on all ranks but 0.
    """

    def __init__(
        self,
        config: Config,
        trained: TrainStep,
        train: Loader,
        valid: Loader,
        path: Path,
        folder: RunFolder | None,
        state: State | None = None,
    ) -> None:
        self.config, self.trained, self.world = config, trained, trained.world
        self.train, self.valid, self.path, self.folder = train, valid, path, folder
        self.origin = Origin.of(config, train.manifest)
        self.position = state.position if state else Position.start(1)
        self.progress = state.progress if state else Progress()
        self.meter = Meter(self.world, train, self.progress.window)
        self.pulse = Pulse(self.world, config.train.checkpoint_minutes)
        self.total_steps = trained.step + self._steps_left()
        self.factor = 1.0  # of the learning rates

    @property
    def done(self) -> bool:
        """All epochs are trained, or early stopping has ended the run."""
        return is_done(self.config, self.position, self.progress)

    def fit(self) -> None:
        """Train to the end. Told to stop by SIGTERM, finish the step, save and raise `SystemExit`."""
        with self.world.stop.awaited():
            while not self.done:
                self._train_epoch()
                if not self.pulse.stop and not self.done:
                    self._end_epoch()
                if self.pulse.stop:
                    self._save()
                    log.info("told to stop: step %d is saved, go on with --resume", self.trained.step)
                    raise SystemExit(EXIT_STOPPED)

    def _steps_left(self) -> int:
        later = range(self.position.epoch + 1, self.config.train.epochs + 1)
        return sum(self.train.plan(p).steps for p in (self.position, *map(Position.start, later)))

    # ---- One epoch ---------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        """What is left of the epoch, or less where the run stops in it."""
        begin, schedule = self.position, self.train.plan(self.position)
        before = sum(leg.steps for leg in begin.legs)
        hidden = not (self.world.is_first and sys.stderr.isatty())
        bar = tqdm(
            total=before + schedule.steps,
            initial=before,
            desc=f"epoch {begin.epoch}",
            unit="step",
            disable=hidden,
            leave=False,
        )
        with bar, closing(self.train.epoch(begin)) as read, closing(self.trained.ahead(read)) as batches:
            for index, batch in enumerate(batches):
                self._step(batch, schedule.global_batch_size(index))
                self.position = self.train.after(begin, index + 1)
                self.pulse.beat()
                bar.update()
                last = index + 1 == schedule.steps
                if self.meter.steps == self.config.train.log_every or last:
                    self._report(bar)
                if not last:
                    self._between_steps()
                if self.pulse.stop or self.done:
                    return

    def _step(self, batch: Batch, impressions: int) -> None:
        schedule = self.config.optimizer.schedule
        self.factor = learning_rate.factor(schedule, self.trained.step + 1, self.total_steps)
        self.trained.set_learning_rates(self.factor)
        self.meter.add(self.trained(batch, impressions), impressions)

    def _between_steps(self) -> None:
        """Validation and checkpoint where they are due inside an epoch."""
        config, step = self.config.train, self.trained.step
        if self.pulse.stop:
            return  # saved by `fit`
        with self.meter.paused():
            improved = False
            if config.validate_steps and step % config.validate_steps == 0:
                improved = self._validate("validation") and self.progress.best_step == step
            keep_best = improved and config.early_stopping_patience > 0
            regular = config.checkpoint_steps and step % config.checkpoint_steps == 0
            if self.done or keep_best or regular or self.pulse.save_due:
                self._save()

    def _end_epoch(self) -> None:
        """Validate and save, unless the run was told to stop in the meantime."""
        if self._validate("epoch", train_seconds=self.progress.epoch_seconds):
            self.position = Position.start(self.position.epoch + 1)
            self.progress = replace(self.progress, epoch_seconds=0.0)
            self._save()

    def _validate(self, kind: str, **more: float) -> bool:
        """Validate and record it; False where the run was told to stop before it was through."""
        scores = validation_auc(self.trained.model, self.valid, self.world, self.pulse)
        if scores is None:
            return False
        step, epoch = self.trained.step, self.position.epoch
        auc = self.world.on_first(lambda: scores["auc_ctcvr"])
        self.progress = self.progress.after_validation(auc, step)
        self._record({"kind": kind, "epoch": epoch, "step": step, **more, **scores})
        log.info(
            "epoch %d of %d, step %d: validation %s", epoch, self.config.train.epochs, step, describe(scores)
        )
        if self.progress.has_stalled(self.config.train.early_stopping_patience):
            log.info(
                "early stopping: %d validations without a CTCVR AUC above that of step %d",
                self.progress.since_best,
                self.progress.best_step,
            )
        return True

    def _save(self) -> None:
        self._refuse_broken_model()
        progress = replace(self.progress, window=self.meter.window())
        save_checkpoint.save(self.path, self.origin, self.position, progress, self.trained, self.world)
        self.pulse.saved()
        if not self.pulse.stop and not self.done:
            self.world.admit()

    def _refuse_broken_model(self) -> None:
        """No checkpoint of a model that has diverged since the last line of the log."""
        network = self.trained.model.network.state_dict()
        extremes = [torch.stack(torch.aminmax(t.float())) for t in network.values() if t.numel()]
        if self.trained.model.embedding.table.numel():
            extremes.append(torch.stack(torch.aminmax(self.trained.model.embedding.table)))
        broken = (~torch.isfinite(torch.cat(extremes))).sum()
        self.world.sum_([broken], "finite")
        if broken:
            raise AgreedError(
                f"training diverged: the model holds numbers that are not finite after step "
                f"{self.trained.step}. {TRY_SMALLER_RATES}"
            )

    # ---- The log -----------------------------------------------------------------------------------

    def _report(self, bar: "tqdm[Any]") -> None:
        values = self.meter.report()
        values["grad_norm"] = float(self.trained.grad_norm())
        seconds = values.pop("seconds")
        self.progress = replace(self.progress, epoch_seconds=self.progress.epoch_seconds + seconds)
        bar.clear()
        epoch = self.position.epoch
        log.info(
            "epoch %d step %d/%d  loss ctr %.5f ctcvr %.5f  grad %.3g  %.0f impressions/s  loader %.0f %%",
            epoch,
            sum(leg.steps for leg in self.position.legs),
            bar.total,
            values["loss_ctr"],
            values["loss_ctcvr"],
            values["grad_norm"],
            values["impressions_per_second"],
            100 * values["loader_share"],
        )
        self._require_finite(values)
        optimizer = self.config.optimizer
        rates = {
            "learning_rate_dense": self.factor * optimizer.dense.learning_rate,
            "learning_rate_sparse": self.factor * optimizer.sparse.learning_rate,
        }
        self._record({"kind": "train", "epoch": epoch, "step": self.trained.step, **values, **rates})

    def _require_finite(self, values: dict[str, float]) -> None:
        if not math.isfinite(values["loss_ctr"] + values["loss_ctcvr"]):
            raise AgreedError(
                f"training diverged: the loss is {values['loss_ctr']} (CTR), {values['loss_ctcvr']} (CTCVR) "
                f"at step {self.trained.step}. {TRY_SMALLER_RATES}"
            )

    def _record(self, entry: dict[str, Any]) -> None:
        if self.folder:
            self.folder.record(entry)


def is_done(config: Config, position: Position, progress: Progress) -> bool:
    """Is there nothing left to train?"""
    stalled = progress.has_stalled(config.train.early_stopping_patience)
    return stalled or position.epoch > config.train.epochs


def describe(scores: dict[str, Any]) -> str:
    """Validation AUCs in one line; those without both classes are undefined."""
    names = {"auc_ctr": "AUC CTR", "auc_cvr": "CVR on clicked", "auc_ctcvr": "CTCVR"}
    shown = {key: "undefined" if scores.get(key) is None else f"{scores[key]:.4f}" for key in names}
    return ", ".join(f"{name} {shown[key]}" for key, name in names.items())
