"""Raw logs to samples against plain Spark SQL and against polars merely splitting tokens.

    make bench-data      (the same as: python -m benchmarks.building.data)
    python -m benchmarks.building.data --sizes 1 4 --repeats 1

Every run is a process of its own, so that its high-water marks are its own, and the routes take turns.
The logs are the demo's at several sizes, drawn once and kept. Neither the start of Spark nor a first run
over small logs is counted.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.building.data_report import figures, table
from benchmarks.building.raw_logs import Logs, draw_missing
from benchmarks.building.route import RESULT_NAME, ROUTES
from benchmarks.common.machine import machine
from benchmarks.common.process_tree import MemoryMarks
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from storage.json_files import read_json, write_json

LOG = logging.getLogger(__name__)

CONTEXTS = 9600  # of 1x: 274 MB, so that 16x is more than 4 GiB
WARM_UP_CONTEXTS = 200
SECONDS_PER_SAMPLE = 0.2
LAST_LINES = 25


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.building.data", __doc__)
    parser.add_argument("--out", default="build/bench-data", help="folder for logs and data.json")
    parser.add_argument("--config", default="configs/ali_ccp.yaml", help="its section `samples` is used")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1, 4, 16], help="multiples of 274 MB (default: 1 4 16)"
    )
    parser.add_argument("--repeats", type=int, help="default: 3 up to 1x, 2 up to 4x, then 1")
    parser.add_argument("--contexts", type=int, default=CONTEXTS, help="contexts of 1x (default %(default)s)")
    return parser.parse_args(argv)


def default_repeats(size: int) -> int:
    return 3 if size <= 1 else 2 if size <= 4 else 1


def run_route(route: str, logs: Path, warm_up: Path, config: str, out: Path) -> dict[str, Any]:
    """One run in a process of its own: what benchmarks.building.route measured, and the memory marks."""
    work = out / "work"
    command = [sys.executable, "-m", "benchmarks.building.route", route, "--logs", str(logs)]
    command += ["--warm-up", str(warm_up), "--out", str(work), "--config", config]
    # Two threads of pieces, each with a polars of one thread.
    environment = os.environ | {"POLARS_MAX_THREADS": "1"}
    log = out / "last_run.log"
    try:
        with log.open("w") as stream, subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT
        ) as process:  # fmt: skip
            marks = _watch(process)
        if process.returncode:
            tail = "\n".join(log.read_text().splitlines()[-LAST_LINES:])
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
        outcome = read_json(str(work / RESULT_NAME))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"route": route, **outcome, "memory": marks}


def _watch(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Wait for the end of a process; the high-water marks of its tree."""
    marks = MemoryMarks(process.pid)
    try:
        while process.poll() is None:
            marks.sample()
            time.sleep(SECONDS_PER_SAMPLE)
    except BaseException:
        process.kill()  # its JVM ends with it
        raise
    return {"resident": marks.resident, "proportional": marks.proportional, "total": marks.total}


def measure_size(
    size: int, folder: Path, logs: Logs, args: argparse.Namespace, warm_up: Path
) -> list[dict[str, Any]]:
    """All routes in turn, as often as asked."""
    repeats = args.repeats or default_repeats(size)
    _fill_page_cache(logs)
    runs = []
    for repeat in range(repeats):
        for route in ROUTES:
            LOG.info("%dx, run %d of %d: %s", size, repeat + 1, repeats, route)
            run = run_route(route, folder, warm_up, args.config, Path(args.out))
            LOG.info("%.1f s, %.1f MB/s", run["seconds"], logs.bytes / 1e6 / run["seconds"])
            runs.append({"size": size, "raw_bytes": logs.bytes, **run})
    return runs


def _fill_page_cache(logs: Logs) -> None:
    """So that the first route to read the logs does not pay for the disk alone."""
    for path in (logs.common, logs.skeleton):
        with open(path, "rb") as stream:
            while stream.read(1 << 24):
                pass


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Draw what is missing, measure every size, write data.json; its content."""
    out = Path(args.out)
    sizes = {size: out / f"raw-{size}x" for size in sorted(set(args.sizes))}
    warm_up = out / "raw-warm-up"
    logs = draw_missing(
        {warm_up: WARM_UP_CONTEXTS, **{folder: size * args.contexts for size, folder in sizes.items()}}
    )
    runs = []
    for size, folder in sizes.items():
        runs += measure_size(size, folder, logs[folder], args, warm_up)
    results = {"machine": machine(), "figures": figures(runs), "runs": runs}
    write_json(str(out / "data.json"), results)
    return results


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    print(f"\n{table(run(args))}\nAll figures: {args.out}/data.json", flush=True)


if __name__ == "__main__":
    exit_with_message(main)
