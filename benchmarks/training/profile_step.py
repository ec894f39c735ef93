"""Where the time of a training step goes: `make profile` (WORKERS=2 for two workers).

Whole training on samples, seen by torch's profiler through the ranges that esmm names. Prints a table of the
stages and the operators that took most, and writes a trace for every worker: open it in chrome://tracing
or https://ui.perfetto.dev.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.training.profile_report import STEP, WAIT, stage_seconds, table
from benchmarks.training.samples import make_samples
from benchmarks.training.train_step import full_batches, make_trained
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from esmm.batch import Batch
from esmm.config import Config, TrainConfig
from esmm.data.loader import Loader
from esmm.workers.world import World

EXAMPLE = """examples:
  make profile WORKERS=2
  python -m benchmarks.training.profile_step --batch-size 1024 --precision fp32
"""
WARM_UP_STEPS = 10
OPERATORS = 15
REPORT = "report.txt"
LOG_NAME = "run.log"
WORKER = "ESMM_PROFILE_WORKER"  # set for the processes that train


def parse_args() -> argparse.Namespace:
    parser = CommandParser("benchmarks.training.profile_step", __doc__, EXAMPLE)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8192, help="impressions per step (%(default)s)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="profiled steps (%(default)s)")
    parser.add_argument("--samples", help="folder of samples; default: those of make bench, made if missing")
    parser.add_argument("--out", default="build/profile", help="folder for the traces (%(default)s)")
    return parser.parse_args()


def waited_for(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, the wait for each of them under a name."""
    while True:
        with record_function(WAIT):
            batch = next(batches)
        yield batch


def measure(args: argparse.Namespace, world: World) -> tuple[profile, float]:
    """Profile `args.steps` steps after a warm-up; also how many cores this worker kept busy meanwhile."""
    config = Config(train=TrainConfig(batch_size=args.batch_size, precision=args.precision))
    loader = Loader(
        args.samples,
        batch_size=args.batch_size,
        rank=world.rank,
        world_size=world.size,
        shuffle_window=config.loader.shuffle_window,
        seed=config.train.seed,
    )
    trained = make_trained(config, loader.schema, world)
    with closing(trained.ahead(waited_for(full_batches(loader)))) as batches:
        for _ in range(WARM_UP_STEPS):
            trained(next(batches), args.batch_size)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            cpu = time.process_time()
            wall = time.perf_counter()
            for _ in range(args.steps):
                with record_function(STEP):
                    trained(next(batches), args.batch_size)
            cores = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return profiler, cores


def work(args: argparse.Namespace) -> None:
    """One worker: profile, write the trace; the first one writes the report."""
    world = World.start().use("auto")
    profiler, cores = measure(args, world)
    profiler.export_chrome_trace(f"{args.out}/trace-{world.rank}.json")
    if world.is_rank_zero:
        Path(args.out, REPORT).write_text(report(args, profiler, cores))


def report(args: argparse.Namespace, profiler: profile, cores: float) -> str:
    """Stages, then the operators that took most."""
    operators: Any = profiler.key_averages()
    header = (
        f"{args.workers} worker(s), batch {args.batch_size}, {args.precision}: {args.steps} steps of rank 0"
    )
    lines = [header, "", table(stage_seconds(profiler.events() or []), args.steps, args.batch_size), ""]
    lines.append(
        operators.table(sort_by="self_cpu_time_total", row_limit=OPERATORS, max_name_column_width=50)
    )
    lines.append(f"cores that this worker kept busy, its loader included: {cores:.2f}")
    return "\n".join([*lines, f"traces: {args.out}/trace-*.json"])


def main() -> None:
    args = parse_args()
    set_up_logging()
    if WORKER in os.environ:
        work(args)
        return
    samples = args.samples or str(make_samples())
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    launcher = ["horovodrun", "-np", str(args.workers), "-H", f"localhost:{args.workers}"]
    command = [sys.executable, "-m", "benchmarks.training.profile_step", *sys.argv[1:], "--samples", samples]
    with (out / LOG_NAME).open("w") as log:
        code = subprocess.call(
            (launcher if args.workers > 1 else []) + command,
            env=os.environ | {WORKER: "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{(out / LOG_NAME).read_text()}")
    print((out / REPORT).read_text(), flush=True)


if __name__ == "__main__":
    exit_with_message(main)
