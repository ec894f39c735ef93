"""What two options of training cost and bring, on the demo's samples: the tables of docs/training.md.

The shuffle window, and bf16 against fp32, each with several seeds; every run is `python -m esmm.train` with
one worker, and the variants take turns. Prints Markdown.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.common.machine import machine
from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from storage import publishing
from storage.json_files import write_json

LOG = logging.getLogger("benchmarks.training.choices")
EXAMPLE = """examples:
  make demo; make bench-choices      (the same as: python -m benchmarks.training.choices)
  python -m benchmarks.training.choices --seeds 1 --tables precision
"""
WINDOWS = (0, 256, 8192)
PRECISIONS = ("fp32", "bf16")
FIRST_SEED = 42
AUCS = {"auc_ctr": "CTR AUC", "auc_cvr": "CVR AUC", "auc_ctcvr": "CTCVR AUC"}
# What each table varies: the option and its values.
TABLES: dict[str, tuple[str, tuple[object, ...]]] = {
    "window": ("loader.shuffle_window", WINDOWS),
    "precision": ("train.precision", PRECISIONS),
}

Run = dict[str, Any]


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("benchmarks.training.choices", __doc__, EXAMPLE)
    samples = "build/demo/default/samples"
    parser.add_argument("--train", default=f"{samples}/split=train", help="samples (default: of make demo)")
    parser.add_argument("--valid", default=f"{samples}/split=test", help="samples (default: of make demo)")
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--out", default="build/choices", help="folder for runs and choices.json")
    parser.add_argument("--seeds", type=int, default=5, help="runs of every variant (%(default)s)")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="an option of all runs"
    )
    return parser.parse_args(arguments)


def train(args: argparse.Namespace, settings: Iterable[str]) -> Run:
    """One run: its validation AUCs and the median speed of its log lines but the first."""
    folder = Path(args.out) / "run"
    command = [sys.executable, "-m", "esmm.train", "--config", args.config, "--train", args.train]
    command += ["--valid", args.valid, "--run", str(folder), "--overwrite"]
    for setting in (*args.set, *settings):
        command += ["--set", setting]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode:
        raise InputError(f"{' '.join(command)} ended with {outcome.returncode}:\n{outcome.stderr[-2000:]}")
    entries = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    reports = [entry["impressions_per_second"] for entry in entries if entry["kind"] == "train"]
    [*_, last] = (entry for entry in entries if entry["kind"] == "epoch")
    # The first report holds the start: kernels are loaded, the first window is read.
    speed = statistics.median(reports[1:] or reports)
    return {"impressions_per_second": speed, **{name: last[name] for name in AUCS}}


def measure(args: argparse.Namespace) -> list[Run]:
    """All variants of all tables, seed by seed."""
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        for name in args.tables:
            option, values = TABLES[name]
            for value in values:
                run = train(args, (f"train.seed={seed}", f"{option}={value}"))
                LOG.info("%s=%s, seed %d: %s", option, value, seed, describe(run))
                runs.append({"table": name, "value": value, "seed": seed, **run})
    return runs


def describe(run: Run) -> str:
    aucs = ", ".join(f"{name} {run[key]:.4f}" for key, name in AUCS.items())
    return f"{aucs}, {run['impressions_per_second']:,.0f} impressions/s"


def markdown(name: str, runs: list[Run]) -> str:
    """A row per value: mean and standard deviation of the AUCs over the seeds, median speed."""
    option, values = TABLES[name]
    lines = [f"| `{option}` | {' | '.join(AUCS.values())} | impressions/s |", "|---" * (len(AUCS) + 2) + "|"]
    for value in values:
        some = [run for run in runs if run["table"] == name and run["value"] == value]
        cells = [_mean_and_deviation([run[key] for run in some]) for key in AUCS]
        cells.append(f"{statistics.median(run['impressions_per_second'] for run in some):,.0f}")
        lines.append(f"| {value} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_deviation(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}"


def main() -> None:
    args = parse_args()
    set_up_logging()
    for folder in (args.train, args.valid):
        if not publishing.is_complete(folder):
            raise InputError(f"{folder}: expected samples, found none. Run make demo first.")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    runs = measure(args)
    measured_on = machine()
    write_json(f"{args.out}/choices.json", {"machine": measured_on, "runs": runs})
    print(f"{measured_on['date']}, {measured_on['processor']}, {measured_on['cores']} cores, one worker, "
          f"{args.seeds} seeds\n")  # fmt: skip
    print("\n\n".join(markdown(name, runs) for name in args.tables), flush=True)


if __name__ == "__main__":
    exit_with_message(main)
