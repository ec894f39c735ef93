"""How long a training step of each model takes beside plain ESMM's: one worker, batches in memory, in turns.

    python -m benchmarks.models.speed --samples build/demo/default/samples/split=train
    python -m benchmarks.models.speed --models mmoe ple --batch-sizes 1024 --steps 20

Prints a table of medians and of their ratios to the reference, of the same run.
"""

import argparse
import statistics
import time

from benchmarks.common.machine import machine
from benchmarks.models import summary
from benchmarks.models.presets import PLAIN, REFERENCE, Preset, read_presets
from benchmarks.training.train_step import first_batches, make_trained
from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.training.train_step import TrainStep
from esmm.workers.world import World
from storage import publishing

WARM_UP = 3


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.models.speed", __doc__)
    samples = "build/demo/default/samples/split=train"
    parser.add_argument("--samples", default=samples, help="default: of make demo")
    parser.add_argument("--models", nargs="+", default=[], help="files of configs/models; default: all")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1024, 8192])
    parser.add_argument("--steps", type=int, default=15, help="of each model and size (%(default)s)")
    return parser.parse_args(argv)


def step_seconds(presets: list[Preset], loader: Loader, world: World, steps: int) -> dict[str, list[float]]:
    """Seconds of the steps of each model; they take turns, so that what slows the machine slows all."""
    batches = first_batches(loader, world)
    trained: dict[str, TrainStep] = {}
    for preset in presets:
        size = f"train.batch_size={loader.batch_size}"
        config = Config.load("configs/demo.yaml", [*PLAIN, *preset.settings, size])
        trained[preset.name] = make_trained(config, loader.schema, world)
    found: dict[str, list[float]] = {name: [] for name in trained}
    for step in range(WARM_UP + steps):
        batch = batches[step % len(batches)]
        for name, one in trained.items():
            begin = time.perf_counter()
            one(batch, loader.batch_size).tolist()  # waits for a GPU
            found[name].append(time.perf_counter() - begin)
    return {name: seconds[WARM_UP:] for name, seconds in found.items()}


def row(name: str, sizes: list[int], found: dict[int, dict[str, list[float]]]) -> list[str]:
    """A model's milliseconds and ratio to the reference, per batch size."""
    cells = []
    for size in sizes:
        own, reference = (statistics.median(found[size][one]) for one in (name, REFERENCE))
        cells += [f"{1000 * own:.1f}", f"{own / reference:.2f}"]
    return [name, *cells]


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    if not publishing.is_complete(args.samples):
        raise InputError(f"{args.samples}: expected samples, found none. Run make demo first.")
    presets = read_presets(args.models)
    world = World.start().use("auto")
    found = {
        size: step_seconds(presets, Loader(args.samples, batch_size=size), world, args.steps)
        for size in args.batch_sizes
    }
    head = ["model", *(cell for size in args.batch_sizes for cell in (f"{size}, ms", "ratio"))]
    on = machine()
    print(f"{on['date']}, {on['processor']}, {on['cores']} cores, one worker, median of {args.steps} steps\n")
    rows = [row(preset.name, args.batch_sizes, found) for preset in presets]
    print(summary.markdown(head, rows))


if __name__ == "__main__":
    exit_with_message(main)
