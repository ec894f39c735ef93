"""A training run on one worker: open and check what it is given, find where it stands, train to the end."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cli.errors import InputError
from esmm.checkpoints import resume, warm_start
from esmm.checkpoints.files import newest_checkpoint
from esmm.checkpoints.loading import load_training
from esmm.checkpoints.run_folder import RunFolder, require_shared
from esmm.checkpoints.state import DamagedError, State, UnfitError
from esmm.checkpoints.writing import Origin
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.model.models import network_class
from esmm.model.network import Rates
from esmm.trainer import Trainer, describe
from esmm.training import tracking
from esmm.training.determinism import set_deterministic
from esmm.training.memory_check import require_room
from esmm.training.tracking import Record
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.workers.world import World
from schemas import manifest
from schemas.manifest import SampleSet
from schemas.train_log import LogEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOptions:
    """What a run is told; `esmm.train --help` says what each option means.

    settings: of --set. words: the command line itself.
    """

    config: str
    train: list[str]
    valid: str
    run: Path
    settings: list[str]
    overwrite: bool
    resume: bool
    warm_start: Path | None
    launcher: Literal["spark"] | None
    num_workers: int
    words: list[str]

    def resumed(self) -> "TrainOptions":
        """The same run, going on."""
        return replace(self, resume=True, words=[*self.words, "--resume"])

    def command(self, workers: int) -> str:
        """The command line with what has started so many workers."""
        by_horovodrun = workers > 1 and self.launcher is None
        launcher = ["horovodrun", "-np", str(workers)] if by_horovodrun else []
        return shlex.join([*launcher, "python", "-m", "esmm.train", *self.words])


@dataclass(frozen=True)
class Job:
    """What a run is told and given, on this worker."""

    options: TrainOptions
    config: Config
    train: Loader
    valid: Loader
    world: World

    @classmethod
    def read(cls, world: World, options: TrainOptions) -> "Job":
        """Open everything that a run reads; an `InputError` where it cannot succeed. Nothing is written."""
        with world.qualify():
            config = Config.load(options.config, options.settings)
        world = world.use(config.train.device)
        train_loader = Loader.for_run(options.train, config, world, config.loader.shuffle_window)
        valid_loader = Loader.for_run([options.valid], config, world)
        job = cls(options, config, train_loader, valid_loader, world)
        with world.qualify():
            job._refuse()
        return job

    def _refuse(self) -> None:
        """An `InputError` where the run cannot succeed."""
        train, valid = (SampleSet(loader.folder, loader.manifest) for loader in (self.train, self.valid))
        manifest.require_same(train, valid)
        manifest.require_apart(train, valid)
        network = network_class(self.config.model.name)
        network.loss_weights(self.config.model, self.config.loss)
        if network.ACTIONS:
            self._require_actions()
        if network.UNCLICKED:
            self._require_unclicked()
        require_room(self.config, self.train.num_rows, training=True, world=self.world)
        if self.config.train.early_stopping_patience and not valid.manifest["counts"]["conversions"]:
            raise InputError(
                f"{valid.folder}: expected conversions, as train.early_stopping_patience asks for a CTCVR "
                "AUC, found none. Give other samples to --valid or turn early stopping off."
            )
        other = self.options.warm_start
        if other:
            if other.resolve() == self.options.run.resolve():
                raise InputError(f"--warm-start {other}: expected another run than --run.")
            newest_checkpoint(other)

    def _require_actions(self) -> None:
        if not self.train.schema.has_actions:
            raise InputError(
                f"{self.train.folder}: model {self.config.model.name} learns from what leads to a "
                "conversion, such as putting into a cart; expected a column action, found none. Name such "
                "columns under tables.actions of the schema (docs/own_logs.md) and build the samples anew, "
                "or choose another model.name."
            )

    def _require_unclicked(self) -> None:
        counts = self.train.manifest["counts"]
        if counts["clicks"] == counts["impressions"]:
            raise InputError(
                f"{self.train.folder}: model {self.config.model.name} takes impressions without a click for "
                f"negatives; expected some, found {counts['impressions']:,} impressions, all clicked. "
                "Build the samples from the logs of all impressions, or choose another model.name."
            )

    @property
    def origin(self) -> Origin:
        """What the run's checkpoints have in common."""
        return Origin.of(self.config, self.train.manifest)

    def start(self) -> TrainStep:
        """A model with its start values."""
        model = make_model(self.config.model, self.train.schema, self.world)
        initialise(model, self.config)
        model.network.start_at(base_rates(self.train.manifest["counts"]))
        model.network.set_statistics(self.train.manifest.get("numbers", {}))
        return TrainStep(self.config, model, self.world)


def train(world: World, options: TrainOptions) -> None:
    """One training run, on this worker."""
    job = Job.read(world, options)
    set_deterministic(job.config.train.deterministic)
    folder: RunFolder | None = None  # rank 0's
    with ExitStack() as stack:
        with world.agree():
            if world.is_rank_zero:
                folder = RunFolder.start(options.run, options.overwrite, options.resume)
                stack.callback(folder.close)
        path, token = world.on_rank_zero(lambda: (folder.path, folder.token) if folder else (Path(), ""))
        with world.qualify():
            require_shared(path, token)
        world.begun()
        found = _find(job, path, folder) if options.resume else None
        if found and resume.is_complete(path, job.config, found[1], world):
            if folder:
                _say_complete(folder, found[1].step)
            return
        _train_from(found, job, path, folder)


def _say_complete(folder: RunFolder, step: int) -> None:
    """Nothing is left to train; but a run that was killed before it took another's place takes it now."""
    told = "there is nothing to resume"
    if folder.path != folder.target:
        folder.finish()
        told = "it has taken the place of the run before"
    print(f"{folder.target}: complete with step {step}, {told}")


def _find(job: Job, path: Path, folder: RunFolder | None) -> tuple[Path, State] | None:
    """The checkpoint to go on with; whoever may overwrite the run begins anew where that cannot be."""
    try:
        return resume.find(path, job.origin, job.world)
    except (DamagedError, UnfitError) as error:
        if not job.options.overwrite:
            raise
        if job.world.is_rank_zero:
            log.warning("starting anew, as --overwrite allows: %s", error)
    with job.world.agree():
        if folder:
            folder.begin_anew()
    return None


def _train_from(found: tuple[Path, State] | None, job: Job, path: Path, folder: RunFolder | None) -> None:
    """Train from a checkpoint, another run's, or the beginning, to the end."""
    world = job.world
    state = found[1] if found else None
    if folder:
        folder.rewind(state)
        folder.describe(job.config, job.options.command(world.size))
    trained = job.start()
    if found:
        with world.agree():
            load_training(*found, trained)
    elif job.options.warm_start:
        warm_start.load(job.options.warm_start, job.origin, trained)
    with world.stop.awaited():
        with ExitStack() as stack:
            with world.agree():
                record = stack.enter_context(_recording(job.config, folder, trained.step))
            trainer = Trainer(job.config, trained, job.train, job.valid, path, record, state)
            trainer.fit()
        if folder:
            last = folder.last_validation()
            folder.finish()
            print(f"{job.options.run}: {_summary(last, trained.step, trainer.progress.skipped)}")


def _summary(last: LogEntry | None, steps: int, skipped: int) -> str:
    """What a complete run has come to. last: its last validation. skipped: impressions."""
    epochs = last["epoch"] if last else "?"
    done = f"{epochs} epoch(s), {steps} steps, validation {describe(last or {})}"
    lacking = f"; {skipped} impressions of broken row groups were skipped" if skipped else ""
    return done + lacking


@contextmanager
def _recording(config: Config, folder: RunFolder | None, step: int) -> Iterator[Record]:
    """What becomes of an entry of the log: on rank 0 a line of train.jsonl and a report to other tools."""
    if folder is None:
        yield lambda entry: None
        return
    with tracking.reports(config, folder.path, folder.target, step) as report:

        def record(entry: LogEntry) -> None:
            folder.record(entry)
            report(entry)

        yield record


def base_rates(counts: dict[str, int]) -> Rates:
    """Those of samples; by Laplace's rule, so neither 0 nor 1 where nothing was counted."""
    clicks = counts["clicks"]
    return Rates(
        ctr=(clicks + 1) / (counts["impressions"] + 2),
        cvr=(counts["conversions"] + 1) / (clicks + 2),
        action=(counts.get("actions", 0) + 1) / (clicks + 2),
    )
