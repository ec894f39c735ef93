"""How fast the loader makes batches when nothing else runs: `python -m benchmarks.loader --samples DIR`."""

import argparse
import json
import time

from esmm.data import Loader
from esmm.schedule import Position
from schemas.errors import exit_with_message


def measure(
    folder: str, batch_size: int, *, shuffle_window: int = 2048, num_threads: int = 2
) -> dict[str, float]:
    """One epoch of one rank after a warm-up batch; rates per second of wall time.

    cpu_seconds tells what the work costs where other processes share the machine.
    """
    loader = Loader(folder, batch_size=batch_size, shuffle_window=shuffle_window, num_threads=num_threads)
    next(loader.epoch(Position.start(0)))  # compiles or loads the kernels
    wall, cpu = time.perf_counter(), time.process_time()
    impressions = tokens = 0
    for batch in loader.epoch(Position.start(1)):
        impressions += batch.num_impressions
        tokens += len(batch.user.ids) + len(batch.impression.ids)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "batch_size": batch_size,
        "impressions": impressions,
        "steps": loader.plan(Position.start(1)).steps,
        "seconds": wall,
        "cpu_seconds": cpu,
        "impressions_per_second": impressions / wall,
        "impressions_per_cpu_second": impressions / cpu,
        "tokens_per_second": tokens / wall,
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m benchmarks.loader --samples samples/split=train --batch-size 8192",
    )
    parser.add_argument("--samples", required=True, help="folder written by jobs.build_samples")
    parser.add_argument("--batch-size", type=int, default=8192, help="impressions per batch (default 8192)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    print(json.dumps(measure(args.samples, args.batch_size), indent=2))


if __name__ == "__main__":
    exit_with_message(main)
