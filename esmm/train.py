"""Train ESMM on samples. See `python -m esmm.train --help`."""

import argparse
import sys
from pathlib import Path

from esmm.config import Config
from esmm.data import Loader
from esmm.distributed import World, run
from esmm.run_folder import RunFolder
from esmm.step import TrainStep, initialise, make_model
from esmm.trainer import Trainer, describe
from schemas import manifest

EXAMPLE = """examples:
  python -m esmm.train --config configs/demo.yaml --train samples/split=train --valid samples/split=test \\
      --run runs/demo --set train.epochs=2
  horovodrun -np 2 -H localhost:2 python -m esmm.train ...     the same curve with two workers
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
    parser.add_argument("--overwrite", action="store_true", help="replace a complete run")
    return parser.parse_args(arguments)


def train(world: World, arguments: list[str]) -> None:
    """One training run, on this worker."""
    options = parse_arguments(arguments)
    path = Path(options.run)
    config = world.together(lambda: Config.load(options.config, options.set))
    world.on_first(lambda: manifest.require_same(options.train, options.valid))
    train_loader = world.together(
        lambda: open_loader(options.train, config, world, config.loader.shuffle_window)
    )
    valid_loader = world.together(lambda: open_loader(options.valid, config, world, 0))
    folder = world.together(lambda: RunFolder.start(path, options.overwrite) if world.is_first else None)
    if folder:
        folder.describe(config, arguments, world.size)
    model = make_model(config.model, sum(train_loader.manifest["buckets"].values()), world)
    initialise(model, config)
    model.network.start_at(*base_rates(train_loader.manifest["counts"]))
    trained = TrainStep(config, model, world)
    record = Trainer(config, trained, train_loader, valid_loader, path, folder).fit()
    if folder:
        folder.finish()
        print(f"{path}: {record['epoch']} epoch(s), {record['step']} steps, validation {describe(record)}")


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
        batch_size=config.batch_size_per_worker(world.size),
        rank=world.rank,
        world_size=world.size,
        shuffle_window=shuffle_window,
        seed=config.train.seed,
        with_keys=with_keys,
        pin_memory=world.device.type == "cuda",
    )


if __name__ == "__main__":
    run(lambda world: train(world, sys.argv[1:]))
