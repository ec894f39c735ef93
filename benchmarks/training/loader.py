"""How fast the loader makes batches when nothing else runs.

python -m benchmarks.training.loader --samples DIR
"""

import argparse
import json
import statistics
import time
from typing import Any

from cli.arguments import CommandParser
from cli.errors import exit_with_message
from esmm.batch import Batch
from esmm.data.assemble import Ranges
from esmm.data.loader import Loader
from esmm.data.schedule import Position

EPOCHS = 5


class BatchesAlone(Loader):
    """Without what the loader's thread prepares for the exchange of embeddings, which is part of a step."""

    def _make_batch(self, ranges: Ranges) -> Batch:
        return self._gather(ranges)


def measure(
    folder: str, batch_size: int, *, shuffle_window: int = 2048, num_threads: int = 2
) -> dict[str, float]:
    """Medians over the epochs of one rank after a warm-up batch, of samples in and batches out.

    with_requests_*: the same with requests (esmm.embedding.row_request) in the batches, as for training.
    Rates per second of processor time tell what the work costs where other processes share the machine.
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "shuffle_window": shuffle_window,
        "num_threads": num_threads,
    }
    alone = BatchesAlone(folder, **options)
    whole = Loader(folder, **options)
    for loader in (alone, whole):
        next(loader.epoch(Position.start(0)))  # compiles or loads the kernels
    epochs = [(_epoch(alone, epoch), _epoch(whole, epoch)) for epoch in range(1, EPOCHS + 1)]
    seconds, cpu_seconds, tokens = (statistics.median(run[i] for run, _ in epochs) for i in range(3))
    whole_seconds, whole_cpu_seconds = (statistics.median(run[i] for _, run in epochs) for i in range(2))
    impressions = alone.manifest["counts"]["impressions"]
    return {
        "batch_size": batch_size,
        "impressions": impressions,
        "steps": alone.plan(Position.start(1)).steps,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "impressions_per_second": impressions / seconds,
        "impressions_per_cpu_second": impressions / cpu_seconds,
        "tokens_per_second": tokens / seconds,
        "with_requests_per_second": impressions / whole_seconds,
        "with_requests_per_cpu_second": impressions / whole_cpu_seconds,
    }


def _epoch(loader: Loader, epoch: int) -> tuple[float, float, int]:
    """Seconds, seconds of the processor, tokens."""
    wall = time.perf_counter()
    cpu = time.process_time()
    tokens = 0
    for batch in loader.epoch(Position.start(epoch)):
        tokens += len(batch.bags.ids)
    return time.perf_counter() - wall, time.process_time() - cpu, tokens


def parse_args() -> argparse.Namespace:
    parser = CommandParser("benchmarks.training.loader", __doc__)
    parser.add_argument("--samples", required=True, help="folder written by jobs.build_samples")
    parser.add_argument("--batch-size", type=int, default=8192, help="impressions per batch (default 8192)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    print(json.dumps(measure(args.samples, args.batch_size), indent=2))


if __name__ == "__main__":
    exit_with_message(main)
