"""Training against its peers: `make bench-train`.

Ours whole (from Parquet), our step alone, FBGEMM's tables, torch-rechub and deepctr-torch take turns, each
run a process of its own; then the loader alone, one worker on one core against two on two, and memory and
traffic against the size of the table. The peers live in build/peers-venv, which is made on the first run.
"""

import argparse
import logging
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common.machine import machine
from benchmarks.common.process_tree import busy_seconds
from benchmarks.training import peer_data, peers_venv
from benchmarks.training.samples import make_samples
from benchmarks.training.train_report import BATCH_SIZES, CASES, OURS, PEERS, WORKERS_CASES, figures, table
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from storage.json_files import read_json, write_json

LOG = logging.getLogger("benchmarks.training.train")
EXAMPLE = """examples:
  make bench-train      (the same as: python -m benchmarks.training.train)
  python -m benchmarks.training.train --repeats 1 --seconds 2 --rows 20 22
"""
WORKERS_IMPRESSIONS = 100_000  # per case of one worker against two
LAST_LINES = 25

Run = dict[str, Any]


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("benchmarks.training.train", __doc__, EXAMPLE)
    parser.add_argument("--out", default="build/bench-train", help="folder for data and train.json")
    parser.add_argument("--data", default="build/bench", help="folder of make bench: logs and samples")
    parser.add_argument("--peers", default="build/peers-venv", help="environment of the peers")
    parser.add_argument("--repeats", type=int, default=3, help="runs of everything that is timed (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case in a run (3)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[20, 22, 24, 26], metavar="LOG2", help="table sizes (20 to 26)"
    )
    return parser.parse_args(arguments)


class Runner:
    """Starts measurements, each in a process of its own, and reads what they found."""

    def __init__(self, out: Path, samples: Path, peers: Path) -> None:
        self.out = out
        self.samples = samples
        self.peers = peers
        self.result = out / "result.json"

    def ours(self, *options: str, launcher: tuple[str, ...] = ()) -> Run:
        """benchmarks.training.train_run, with the command that launches it."""
        command = [*launcher, sys.executable, "-m", "benchmarks.training.train_run", *options]
        return self._run([*command, "--samples", str(self.samples), "--out", str(self.result)])

    def peer(self, route: str, *options: str) -> Run:
        """A peer, `name` or `name:bits` for tables of 2^bits rows."""
        name, _, bits = route.partition(":")
        rows = ["--rows", str(1 << int(bits))] if bits else []
        peer = f"benchmarks.training.peers.{name}"
        command = [str(self.peers), "-W", "ignore", "-m", peer, *rows, *options]
        return self._run([*command, "--data", str(self.out), "--out", str(self.result)])

    def loader(self, batch_size: int) -> Run:
        command = [sys.executable, "-m", "benchmarks.training.loader", "--samples", str(self.samples)]
        return self._run([*command, "--batch-size", str(batch_size)], self.result)

    def _run(self, command: list[str], stdout: Path | None = None) -> Run:
        """The result file, and how many cores others kept busy meanwhile."""
        log = self.out / "last_run.log"
        self.result.unlink(missing_ok=True)
        before = _busy_of_others()
        begin = time.perf_counter()
        with log.open("w") as messages, (stdout or log).open("a") as results:
            code = subprocess.call(command, stdout=results, stderr=messages)
        if code:
            tail = "\n".join(log.read_text().splitlines()[-LAST_LINES:])
            raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{tail}")
        others = max(0.0, _busy_of_others() - before) / (time.perf_counter() - begin)
        return {"result": read_json(str(self.result)), "cores_of_others": others}


def _busy_of_others() -> float:
    """Seconds that all cores worked so far, but for our children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_seconds() - children.ru_utime - children.ru_stime


def launchers() -> dict[int, tuple[str, ...]]:
    """By number of workers: one is bound to one core, two have a core each."""
    core = min(os.sched_getaffinity(0))
    return {1: ("taskset", "-c", str(core)), 2: ("horovodrun", "-np", "2", "-H", "localhost:2")}


def measure_speed(runner: Runner, args: argparse.Namespace) -> list[Run]:
    """Ours and the peers in turn."""
    runs = []
    options = ("--cases", *CASES, "--seconds", str(args.seconds))
    for repeat in range(args.repeats):
        for route in (*OURS, *PEERS):
            run = runner.ours(route, *options) if route in OURS else runner.peer(route, *options)
            rates = ", ".join(_rate(run["result"], case) for case in CASES)
            LOG.info("run %d of %d, %s: %s impressions/s", repeat + 1, args.repeats, route, rates)
            runs.append({"route": route, **run})
    return runs


def _rate(result: Run, case: str) -> str:
    return f"{case} {result[case].get('impressions_per_second', float('nan')):,.0f}"


def measure_loader(runner: Runner, args: argparse.Namespace) -> list[Run]:
    runs = []
    for _ in range(args.repeats):
        for size in BATCH_SIZES:
            run = runner.loader(size)
            LOG.info("loader, batch %d: %.0f impressions/s", size, run["result"]["impressions_per_second"])
            runs.append({"batch_size": size, **run})
    return runs


def measure_workers(runner: Runner, args: argparse.Namespace) -> list[Run]:
    """One worker on one core against two on two, whole training."""
    runs = []
    options = ("whole", "--impressions", str(WORKERS_IMPRESSIONS), "--cases")
    for _ in range(args.repeats):
        for workers, launcher in launchers().items():
            run = runner.ours(*options, *WORKERS_CASES[workers], launcher=launcher)
            rates = ", ".join(_rate(run["result"], case) for case in WORKERS_CASES[workers])
            LOG.info("%d worker(s), a core each: %s impressions/s", workers, rates)
            runs.append({"workers": workers, **run})
    return runs


def measure_tables(runner: Runner, args: argparse.Namespace) -> list[Run]:
    """Memory and traffic of one worker and of two, for every size of the table."""
    runs = []
    cases = [f"{size}:fp32" for size in BATCH_SIZES]
    for bits in args.rows:
        for workers, launcher in {1: (), 2: launchers()[2]}.items():
            run = runner.ours("table", "--rows", str(1 << bits), "--cases", *cases, launcher=launcher)
            LOG.info(
                "2^%d rows, %d worker(s): %.0f MB each", bits, workers, max(run["result"]["resident"]) / 1e6
            )
            runs.append(run)
    return runs


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing, measure everything, write train.json; its content."""
    out = Path(args.out)
    begin = time.monotonic()
    peers = peers_venv.interpreter(Path(args.peers))
    samples = make_samples(Path(args.data))
    peer_data.write(str(samples), out, list(BATCH_SIZES))
    runner = Runner(out, samples, peers)
    runs = {
        "speed": measure_speed(runner, args),
        "loader": measure_loader(runner, args),
        "workers": measure_workers(runner, args),
        "tables": measure_tables(runner, args),
    }
    seconds = time.monotonic() - begin
    results = {"machine": machine(), "seconds": seconds, "figures": figures(runs), "runs": runs}
    write_json(str(out / "train.json"), results)
    return results


def main() -> None:
    args = parse_args()
    set_up_logging()
    print(f"\n{table(run(args))}\nAll figures: {args.out}/train.json", flush=True)


if __name__ == "__main__":
    exit_with_message(main)
