"""The steps of a run: train, log, validate, save checkpoints, stop."""

import logging
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from cli.errors import InputError
from esmm.batch import Batch
from esmm.checkpoints import writing
from esmm.checkpoints.state import State
from esmm.checkpoints.writing import Origin
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.training import learning_rate
from esmm.training.divergence import Guard
from esmm.training.meter import Meter
from esmm.training.progress import Progress
from esmm.training.tracking import Record
from esmm.training.train_step import TrainStep
from esmm.training.validation import validation_auc
from esmm.workers.heartbeat import Pulse
from esmm.workers.stop import EXIT_STOPPED
from esmm.workers.world import AgreedError
from schemas.train_log import LogEntry

log = logging.getLogger(__name__)


class Trainer:
    """Trains a model on one loader and validates it on another, from where `state` says that it stands.

    path: of the run. record: takes the log's entries.
    """

    def __init__(
        self,
        config: Config,
        trained: TrainStep,
        train: Loader,
        valid: Loader,
        path: Path,
        record: Record,
        state: State | None = None,
    ) -> None:
        self.config = config
        self.trained = trained
        self.world = trained.world
        self.train = train
        self.valid = valid
        self.path = path
        self.record = record
        self.origin = Origin.of(config, train.manifest)
        self.position = state.position if state else Position.start(1)
        self.progress = state.progress if state else Progress(validated=0)
        self.guard = Guard(path, self.world)
        losses = list(trained.model.network.losses)
        self.meter = Meter(self.world, train, self.progress.window, losses)
        self.pulse = Pulse(self.world, config.train.checkpoint_minutes)
        self.total_steps = self._total_steps()
        self.lr_factor = 1.0  # of the learning rates
        self.saved = self._stand() if state else None

    @property
    def done(self) -> bool:
        """All epochs are trained, or early stopping has ended the run."""
        return self.progress.is_done(self.config.train, self.position)

    def fit(self) -> None:
        """Train to the end. Told to stop (`World.stop`), finish the step, save and raise `SystemExit`."""
        while not self.done:
            self._train_epoch()
            if not self.pulse.stop and not self.done:
                self._end_epoch()
            if self.pulse.stop:
                self._save()
                log.info("told to stop: step %d is saved, go on with --resume", self.trained.step)
                raise SystemExit(EXIT_STOPPED)

    def _total_steps(self) -> int:
        """Of the whole run, for the learning rates' decay; 0 where there is none, as planning takes time."""
        if self.config.optimizer.schedule.decay == "none":
            return 0
        later = range(self.position.epoch + 1, self.config.train.epochs + 1)
        left = (self.train.plan(p).steps for p in (self.position, *map(Position.start, later)))
        return self.trained.step + sum(left)

    # ---- One epoch ---------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        """What is left of the epoch, or less where the run stops in it."""
        begin = self.position
        schedule = self.train.plan(begin)
        if (
            begin.legs
            and schedule.steps
            and self.progress.owes_validation(self.config.train, self.trained.step)
        ):
            self._between_steps()  # the run was stopped before that validation was through
            if self.pulse.stop or self.done:
                return
        before = sum(leg.steps for leg in begin.legs)
        hidden = not (self.world.is_rank_zero and sys.stderr.isatty())
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
                if self.meter.steps >= self.config.train.log_every or last:
                    self._report(bar)
                if not last:
                    self._between_steps()
                if self.pulse.stop or self.done:
                    return

    def _step(self, batch: Batch, impressions: int) -> None:
        schedule = self.config.optimizer.schedule
        self.lr_factor = learning_rate.lr_factor(schedule, self.trained.step + 1, self.total_steps)
        self.trained.set_learning_rates(self.lr_factor)
        losses = self.trained(batch, impressions)
        self.meter.add(losses, batch.num_impressions, impressions)
        self.guard.watch(self.trained.step, batch, losses, [self.trained.gradient, self.trained.row_squares])

    def _between_steps(self) -> None:
        """Validation and checkpoint where they are due inside an epoch."""
        config = self.config.train
        step = self.trained.step
        if self.pulse.stop:
            return  # saved by `fit`
        with self.meter.paused():
            improved = False
            if self.progress.owes_validation(config, step):
                improved = self._validate("validation") and self.progress.best_step == step
            keep_best = improved and config.early_stopping_patience > 0
            regular = config.checkpoint_steps and step % config.checkpoint_steps == 0
            if self.done or keep_best or regular or self.pulse.save_due:
                self._save()

    def _end_epoch(self) -> None:
        """Validate and save, unless the run was told to stop in the meantime."""
        if self._validate("epoch"):
            self.position = Position.start(self.position.epoch + 1)
            self.progress = replace(self.progress, epoch_seconds=0.0, epoch_skipped=0)
            self._save()

    def _validate(self, kind: Literal["validation", "epoch"]) -> bool:
        """Validate and record it; False where the run was told to stop before it was through."""
        scores = validation_auc(self.trained.model, self.valid, self.world, self.pulse)
        if scores is None:
            return False
        step = self.trained.step
        epoch = self.position.epoch
        auc = self.world.on_rank_zero(lambda: scores["auc_ctcvr"])
        self.progress = self.progress.after_validation(auc, step)
        entry = LogEntry(kind=kind, epoch=epoch, step=step)
        if kind == "epoch":
            entry["train_seconds"] = self.progress.epoch_seconds
        self.record({**entry, **scores})
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
        """Write a checkpoint, unless the last one says it all already."""
        self.guard.check()
        if self.saved != self._stand():
            progress = replace(self.progress, window=self.meter.window())
            position = replace(self.position, left_out=self._left_out())
            writing.save(self.path, self.origin, position, progress, self.trained, self.world)
            self.saved = self._stand()
        self.pulse.saved()
        if not self.pulse.stop and not self.done:
            self.world.admit()

    def _left_out(self) -> tuple[int, ...]:
        """For the position, on rank 0: what windows of any rank lack. All ranks call it together."""
        mine = torch.tensor([-1, *self.train.left_out(self.position)]).unsqueeze(1)
        found = self.world.gather(mine, "left_out")
        return () if found is None else tuple(sorted(set(found.flatten().tolist()) - {-1}))

    def _stand(self) -> tuple[int, Position, Progress, int]:
        """What changes between two checkpoints that differ, but for what a clock has measured."""
        return self.trained.step, self.position, self.progress, self.meter.steps

    # ---- The log -----------------------------------------------------------------------------------

    def _report(self, bar: "tqdm[Any]") -> None:
        report = self.meter.report()
        grad_norm = float(self.trained.grad_norm())
        self.progress = self.progress.after_line(report.seconds, report.skipped_impressions)
        bar.clear()
        epoch = self.position.epoch
        log.info(
            "epoch %d step %d/%d  loss %s  grad %.3g  %.0f impressions/s  loader %.0f %%%s",
            epoch,
            sum(leg.steps for leg in self.position.legs),
            bar.total,
            " ".join(f"{name} {loss:.5f}" for name, loss in report.losses.items()),
            grad_norm,
            report.impressions_per_second,
            100 * report.loader_share,
            f"  skipped {report.skipped_impressions} impressions" if report.skipped_impressions else "",
        )
        self.guard.check()
        optimizer = self.config.optimizer
        self.record(
            LogEntry(
                kind="train",
                epoch=epoch,
                step=self.trained.step,
                **{f"loss_{name}": loss for name, loss in report.losses.items()},  # type: ignore[typeddict-item]
                impressions_per_second=report.impressions_per_second,
                loader_share=report.loader_share,
                skipped_impressions=report.skipped_impressions,
                grad_norm=grad_norm,
                learning_rate_dense=self.lr_factor * optimizer.dense.learning_rate,
                learning_rate_sparse=self.lr_factor * optimizer.sparse.learning_rate,
            )
        )
        try:
            self.train.require_enough(self.progress.epoch_skipped)
        except InputError as error:
            raise AgreedError(str(error)) from None


def describe(scores: Mapping[str, object]) -> str:
    """Validation AUCs in one line; those without both classes are undefined."""
    names = {"auc_ctr": "AUC CTR", "auc_cvr": "CVR on clicked", "auc_ctcvr": "CTCVR"}
    shown = {key: "undefined" if scores.get(key) is None else f"{scores[key]:.4f}" for key in names}
    return ", ".join(f"{name} {shown[key]}" for key, name in names.items())
