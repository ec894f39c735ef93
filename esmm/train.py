"""Train ESMM on samples. See `python -m esmm.train --help`."""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import InputError
from esmm.checkpoints import resume, warm_start
from esmm.checkpoints import state as checkpoint
from esmm.checkpoints.run_folder import RunFolder, require_shared
from esmm.checkpoints.state import DamagedError, State
from esmm.checkpoints.writing import Origin
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.trainer import Trainer, describe
from esmm.training import tracking
from esmm.training.determinism import set_deterministic
from esmm.training.memory_check import require_room
from esmm.training.tracking import Record
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.workers.environment import is_elastic
from esmm.workers.process import run
from esmm.workers.world import World
from schemas import manifest

log = logging.getLogger(__name__)

EXAMPLE = """examples:
  python -m esmm.train --config configs/demo.yaml --train samples/split=train --valid samples/split=test \\
      --run runs/demo --set train.epochs=2
  horovodrun -np 2 -H localhost:2 python -m esmm.train ...     two workers share each step
  python -m esmm.train ... --run runs/demo --resume            go on where it was stopped
  spark-submit ... esmm/train.py --launcher spark --num-workers 2 ...      two workers on a Spark cluster

exit codes:
  0    the run is complete
  2    something given is wrong, or the disk is full: one message says what
  143  stopped by SIGTERM, after the step under way and a checkpoint: go on with --resume
"""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m esmm.train",
        description="Train ESMM on samples.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument("--train", required=True, help="folder of samples to train on")
    parser.add_argument("--valid", required=True, help="folder of samples to validate on after each epoch")
    parser.add_argument("--run", required=True, help="folder to write: configuration, log, checkpoints")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="change one option")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a run; a complete one stays until the new one is (--resume: goes on with that)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the run's newest good checkpoint, if it has one"
    )
    parser.add_argument(
        "--warm-start", metavar="RUN", help="start from what fits of another run's newest checkpoint"
    )
    parser.add_argument("--launcher", choices=["spark"], help="let Spark start the workers (docs/elastic.md)")
    parser.add_argument("--num-workers", type=int, metavar="N", help="how many of them")
    options = parser.parse_args(arguments)
    if options.launcher and (options.num_workers or 0) < 1:
        parser.error("--launcher: expected --num-workers N with it, 1 or more. Add it.")
    return options


@dataclass(frozen=True)
class Job:
    """What a run is told and given, on this worker."""

    options: argparse.Namespace
    command: list[str]
    config: Config
    train: Loader
    valid: Loader
    world: World

    @classmethod
    def read(cls, world: World, arguments: list[str]) -> "Job":
        """Open everything that a run reads; an `InputError` where it cannot succeed. Nothing is written."""
        options = parse_arguments(arguments)
        with world.qualify():
            config = Config.load(options.config, options.set)
        world = world.use(config.train.device)
        window = config.loader.shuffle_window
        with world.qualify():
            train_loader = open_loader(options.train, config, world, window)
        with world.qualify():
            valid_loader = open_loader(options.valid, config, world, 0)
        world.on_rank_zero(lambda: manifest.require_same(options.train, options.valid))
        world.on_rank_zero(lambda: manifest.require_apart(options.train, options.valid))
        job = cls(options, arguments, config, train_loader, valid_loader, world)
        with world.qualify():
            job._refuse()
        return job

    def _refuse(self) -> None:
        options = self.options
        require_room(self.config, num_rows(self.train), training=True, world=self.world)
        if self.config.train.early_stopping_patience and not self.valid.manifest["counts"]["conversions"]:
            raise InputError(
                f"{options.valid}: expected conversions, as train.early_stopping_patience asks for a CTCVR "
                "AUC, found none. Give other samples to --valid or turn early stopping off."
            )
        if options.warm_start:
            if Path(options.warm_start).resolve() == Path(options.run).resolve():
                raise InputError(f"--warm-start {options.warm_start}: expected another run than --run.")
            checkpoint.latest(Path(options.warm_start))

    def start(self) -> TrainStep:
        """A model with its start values."""
        model = make_model(self.config.model, num_rows(self.train), self.world)
        initialise(model, self.config)
        model.network.start_at(*base_rates(self.train.manifest["counts"]))
        return TrainStep(self.config, model, self.world)


def train(world: World, arguments: list[str]) -> None:
    """One training run, on this worker."""
    job = Job.read(world, arguments)
    options = job.options
    set_deterministic(job.config.train.deterministic)
    folder: RunFolder | None = None
    with ExitStack() as stack:
        with world.agree():
            if world.is_rank_zero:
                folder = RunFolder.start(Path(options.run), options.overwrite, options.resume)
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
        return resume.find(path, Origin.of(job.config, job.train.manifest), job.world)
    except (DamagedError, resume.UnfitError) as error:
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
    world, state = job.world, found[1] if found else None
    if folder:
        folder.rewind(state)
        folder.describe(job.config, job.command, world.size)
    trained = job.start()
    if found:
        with world.agree():
            checkpoint.load_training(*found, trained)
    elif job.options.warm_start:
        warm_start.load(Path(job.options.warm_start), Origin.of(job.config, job.train.manifest), trained)
    with world.stop.awaited():
        with ExitStack() as stack:
            with world.agree():
                record = stack.enter_context(_recording(job.config, folder, trained.step))
            trainer = Trainer(job.config, trained, job.train, job.valid, path, record, state)
            trainer.fit()
        if folder:
            last = folder.last_validation()
            folder.finish()
            done = f"{last.get('epoch', '?')} epoch(s), {trained.step} steps, validation {describe(last)}"
            skipped = trainer.progress.skipped
            lacking = f"; {skipped} impressions of broken row groups were skipped" if skipped else ""
            print(f"{job.options.run}: {done}{lacking}")


@contextmanager
def _recording(config: Config, folder: RunFolder | None, step: int) -> Iterator[Record]:
    """What becomes of an entry of the log: on rank 0 a line of train.jsonl and a report to other tools."""
    if folder is None:
        yield lambda entry: None
        return
    with tracking.reports(config, folder.path, folder.target, step) as report:

        def record(entry: dict[str, Any]) -> None:
            folder.record(entry)
            report(entry)

        yield record


def num_rows(loader: Loader) -> int:
    """Rows of the table that the loader's samples need."""
    return sum(loader.manifest["buckets"].values())


def base_rates(counts: dict[str, int]) -> tuple[float, float]:
    """CTR, and CVR of clicks, of samples; by Laplace's rule, so neither 0 nor 1 where nothing was counted."""
    impressions, clicks, conversions = counts["impressions"], counts["clicks"], counts["conversions"]
    return (clicks + 1) / (impressions + 2), (conversions + 1) / (clicks + 2)


def open_loader(
    folder: str, config: Config, world: World, shuffle_window: int, with_keys: bool = False
) -> Loader:
    """This rank's loader of a folder of samples."""
    return Loader(
        folder,
        batch_size=config.train.batch_size,
        rank=world.rank,
        world_size=world.size,
        shuffle_window=shuffle_window,
        seed=config.train.seed,
        with_keys=with_keys,
        pin_memory=world.device.type == "cuda",
        # Whoever predicts wants all rows or none.
        skip_broken=config.loader.skip_broken_row_groups and not with_keys,
        max_broken_share=config.loader.max_broken_share,
    )


def main(arguments: list[str]) -> None:
    """Train on this worker, also on when elastic workers come and go; or let Spark start the workers."""
    options = parse_arguments(arguments)
    if options.launcher == "spark":
        from esmm.spark_launcher import launch  # imports Spark

        launch(arguments, options.num_workers)
    elif is_elastic():
        from esmm.workers.elastic import run_elastic  # imports Horovod

        run_elastic(train, arguments)
    else:
        run(lambda world: train(world, arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
