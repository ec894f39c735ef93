"""Train ESMM on samples. See `python -m esmm.train --help`."""

import argparse
import logging
import sys
from pathlib import Path

from esmm import checkpoint, resume, warm_start
from esmm.config import Config
from esmm.data import Loader
from esmm.distributed import World, is_elastic, run
from esmm.memory import require_room
from esmm.run_folder import RunFolder, is_complete
from esmm.save_checkpoint import Origin
from esmm.step import TrainStep, initialise, make_model
from esmm.trainer import Trainer, describe, is_done
from schemas import manifest
from schemas.errors import InputError

log = logging.getLogger(__name__)

EXAMPLE = """examples:
  python -m esmm.train --config configs/demo.yaml --train samples/split=train --valid samples/split=test \\
      --run runs/demo --set train.epochs=2
  horovodrun -np 2 -H localhost:2 python -m esmm.train ...     the same curve with two workers
  python -m esmm.train ... --run runs/demo --resume            go on where it was stopped

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
        "--overwrite", action="store_true", help="replace a run; a complete one stays until the new one is"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the run's newest good checkpoint, if it has one"
    )
    parser.add_argument(
        "--warm-start", metavar="RUN", help="start from what fits of another run's newest checkpoint"
    )
    return parser.parse_args(arguments)


def train(world: World, arguments: list[str]) -> None:
    """One training run, on this worker."""
    options = parse_arguments(arguments)
    config = world.together(lambda: Config.load(options.config, options.set))
    world.on_first(lambda: manifest.require_same(options.train, options.valid))
    train_loader = world.together(
        lambda: open_loader(options.train, config, world, config.loader.shuffle_window)
    )
    valid_loader = world.together(lambda: open_loader(options.valid, config, world, 0))
    world.together(lambda: _refuse(options, config, train_loader, valid_loader, world))
    folder = world.together(
        lambda: (
            RunFolder.start(Path(options.run), options.overwrite, options.resume) if world.is_first else None
        )
    )
    try:
        path = world.on_first(lambda: folder.path if folder else Path())
        _train_into(path, folder, config, options, arguments, train_loader, valid_loader, world)
    finally:
        if folder:
            folder.close()


def _refuse(
    options: argparse.Namespace, config: Config, train_loader: Loader, valid_loader: Loader, world: World
) -> None:
    """Stop before anything is written where the run cannot succeed."""
    require_room(config, num_rows(train_loader), training=True, world=world)
    if config.train.early_stopping_patience and not valid_loader.manifest["counts"]["conversions"]:
        raise InputError(
            f"{options.valid}: expected conversions, as train.early_stopping_patience asks for a CTCVR AUC, "
            "found none. Give other samples to --valid or turn early stopping off."
        )
    if options.warm_start:
        if Path(options.warm_start).resolve() == Path(options.run).resolve():
            raise InputError(f"--warm-start {options.warm_start}: expected another run than --run.")
        checkpoint.latest(Path(options.warm_start))


def _train_into(
    path: Path,
    folder: RunFolder | None,
    config: Config,
    options: argparse.Namespace,
    arguments: list[str],
    train_loader: Loader,
    valid_loader: Loader,
    world: World,
) -> None:
    origin = Origin.of(config, train_loader.manifest)
    found = resume.find(path, origin, world) if options.resume else None
    complete = world.on_first(lambda: is_complete(path))
    if found and complete and is_done(config, found[1].position, found[1].progress):
        if world.is_first:
            print(f"{options.run}: complete with step {found[1].step}, there is nothing to resume")
        return
    if folder:
        folder.rewind(found[1].step if found else 0)
        folder.describe(config, arguments, world.size)
    trained = _make(config, train_loader, world)
    if found:
        world.together(lambda: checkpoint.load_training(*found, trained))
    elif options.warm_start:
        warm_start.load(Path(options.warm_start), origin, trained)
    Trainer(config, trained, train_loader, valid_loader, path, folder, found[1] if found else None).fit()
    if folder:
        last = folder.last_validation()
        folder.finish()
        print(f"{options.run}: {last['epoch']} epoch(s), {last['step']} steps, validation {describe(last)}")


def _make(config: Config, loader: Loader, world: World) -> TrainStep:
    """A model with its start values."""
    model = make_model(config.model, num_rows(loader), world)
    initialise(model, config)
    model.network.start_at(*base_rates(loader.manifest["counts"]))
    return TrainStep(config, model, world)


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
    )


def main(arguments: list[str]) -> None:
    """Train on this worker; under elastic Horovod, also on when workers come and go."""
    if is_elastic():
        from esmm.elastic import run_elastic  # imports Horovod

        run_elastic(train, arguments)
    else:
        run(lambda world: train(world, arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
