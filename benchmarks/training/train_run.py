"""Our training, measured in a process of its own (or several, under horovodrun), for `make bench-train`.

    python -m benchmarks.training.train_run whole  --samples build/bench/samples --cases 1024:fp32 --out FILE
    python -m benchmarks.training.train_run memory ...      the steps alone, batches as the loader makes them
    python -m benchmarks.training.train_run bags ...        the steps and what the loader does for them
    python -m benchmarks.training.train_run table --rows 1048576 ...    memory and traffic instead of speed

whole is what esmm.train does between two checkpoints: samples read from Parquet through Petastorm, steps.
The loader's thread also makes the request of a batch, which merges equal ids and inverts the bags. memory
finds the requests ready; bags makes them in the step, from the same bags that FBGEMM is given.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks.common.process_tree import MemoryMarks
from benchmarks.training.counting_world import CountingWorld
from benchmarks.training.measuring import WARM_UP_STEPS, Case, Feed, parser, run_cases
from benchmarks.training.train_step import enlarged, first_batches, full_batches, make_trained
from cli.errors import exit_with_message
from esmm.batch import Batch
from esmm.config import Config, TrainConfig
from esmm.data.loader import Loader

IN_MEMORY_ROWS = 1 << 20  # as in benchmarks/training/peers/fbgemm.py
TABLE_STEPS = 10


def parse_args() -> argparse.Namespace:
    options = parser("benchmarks.training.train_run", __doc__)
    options.add_argument("route", choices=("whole", "memory", "bags", "table"))
    options.add_argument("--samples", required=True)
    options.add_argument("--impressions", type=int, help="trained per case, instead of --seconds")
    options.add_argument("--rows", type=int, default=IN_MEMORY_ROWS, help="of the table, not with whole")
    return options.parse_args()


def make_config(case: Case) -> Config:
    precision = "bf16" if case.precision == "bf16" else "fp32"
    return Config(train=TrainConfig(batch_size=case.batch_size, precision=precision))


def make_loader(args: argparse.Namespace, config: Config, world: CountingWorld) -> Loader:
    return Loader(
        args.samples,
        batch_size=config.train.batch_size,
        rank=world.rank,
        world_size=world.size,
        shuffle_window=config.loader.shuffle_window,
        seed=config.train.seed,
    )


def make_feed(args: argparse.Namespace, case: Case, batches: Iterator[Batch]) -> Feed[Batch]:
    if args.impressions is None:
        return Feed(batches, args.seconds)
    return Feed(batches, max_steps=max(1, args.impressions // case.batch_size))


def speed(args: argparse.Namespace, case: Case, world: CountingWorld) -> Feed[Batch]:
    """Train; the feed notes the share of the time spent waiting for batches, and bytes sent per step."""
    config = make_config(case)
    loader = make_loader(args, config, world)
    schema = loader.schema if args.route == "whole" else enlarged(loader.schema, args.rows)
    trained = make_trained(config, schema, world)
    waited = 0.0
    world.barrier()
    with closing(trained.ahead(make_batches(args.route, loader, schema.num_rows, world))) as batches:
        feed = make_feed(args, case, batches)
        for index, batch in enumerate(feed):
            if index == WARM_UP_STEPS:
                waited = loader.wait_seconds
                world.sent.clear()
            trained(batch, case.batch_size)
    feed.notes["loader_share"] = (loader.wait_seconds - waited) / feed.elapsed
    feed.notes["bytes_per_step"] = world.sent.total() / feed.steps
    return feed


def make_batches(route: str, loader: Loader, rows: int, world: CountingWorld) -> Iterator[Batch]:
    if route == "whole":
        return full_batches(loader)
    batches = cycle(first_batches(loader, world))
    if route == "memory":
        return batches
    return (batch.with_request(rows, world.size) for batch in batches)


def spread(batch: Batch, rows: int, stride: int, world: CountingWorld) -> Batch:
    """The same ids scattered over a larger table, so that all of its memory is used."""
    batch.bags.ids.mul_(stride)
    return batch.with_request(rows, world.size)


def measure_table(args: argparse.Namespace, world: CountingWorld) -> dict[str, object]:
    """High-water mark of every worker, and bytes sent per step by rank 0, by collective."""
    traffic: dict[str, dict[str, float]] = {}
    config = make_config(args.cases[0])
    schema = enlarged(make_loader(args, config, world).schema, args.rows)
    trained = make_trained(config, schema, world)
    for case in args.cases:
        loader = make_loader(args, make_config(case), world)
        stride = max(1, args.rows // loader.num_rows)
        batches = [spread(batch, args.rows, stride, world) for batch in first_batches(loader, world)]
        world.sent.clear()
        for batch in islice(cycle(batches), TABLE_STEPS):
            trained(batch, case.batch_size)
        traffic[str(case)] = {name: sent / TABLE_STEPS for name, sent in world.sent.items()}
    marks = MemoryMarks(os.getpid())
    marks.sample()
    memory = world.gather(torch.tensor([marks.resident["driver"]]), "memory")
    return {
        "rows": args.rows,
        "workers": world.size,
        "resident": [] if memory is None else memory.tolist(),
        "bytes_per_step": traffic,
    }


def main() -> None:
    args = parse_args()
    world = CountingWorld.start().use("auto")
    if not world.is_rank_zero:
        args.out = os.devnull
    if args.route == "table":
        Path(args.out).write_text(json.dumps(measure_table(args, world)))
    else:
        run_cases(args, lambda case: speed(args, case, world))


if __name__ == "__main__":
    exit_with_message(main)
