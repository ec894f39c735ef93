"""Predictions to metrics at 1x, 4x and 16x (43 million impressions), beside scikit-learn.

    make bench-evaluate      (the same as: python -m benchmarks.evaluation.evaluate --sizes 1 4 16)
    python -m benchmarks.evaluation.evaluate --rows 100000 --sizes 1 --repeats 1      a quick look

Both routes in turns on the same files, which are drawn once; their AUCs have to agree.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common.machine import machine
from benchmarks.evaluation.drawn import predictions_of
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from cli.text_table import aligned, with_rule
from storage.json_files import write_json

LOG = logging.getLogger("bench")
ROUTES = ("ours", "scikit")
SAME = 1e-9  # of the AUCs of both routes


def parse_arguments() -> argparse.Namespace:
    parser = CommandParser("benchmarks.evaluation.evaluate", __doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench-evaluate"), metavar="DIR")
    parser.add_argument("--rows", type=int, default=2_700_000, help="impressions at 1x (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16], metavar="N")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each route, in turns")
    return parser.parse_args()


def run_route(route: str, predictions: Path, out: Path) -> dict[str, Any]:
    """The figures of one run."""
    command = [sys.executable, "-m", "benchmarks.evaluation.route", route]
    command += ["--predictions", str(predictions), "--out", str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(args: argparse.Namespace, size: int) -> dict[str, Any]:
    """Both routes in turns on one size; the median of each figure, and that they agree."""
    predictions = predictions_of(args.out / f"{size}x-{args.rows}", args.rows * size)
    runs: dict[str, list[dict[str, Any]]] = {route: [] for route in ROUTES}
    for repeat in range(args.repeats):
        for route in ROUTES:
            LOG.info("%dx, %s, run %d of %d", size, route, repeat + 1, args.repeats)
            runs[route].append(run_route(route, predictions, args.out / f"{size}x.json"))
    ours, scikit = (runs[route][0]["auc"] for route in ROUTES)
    apart = max(abs(ours[task] - scikit[task]) for task in ours)
    if apart > SAME:
        raise AssertionError(f"{predictions}: the AUCs of both routes differ by {apart}")
    return {
        "rows": args.rows * size,
        **{
            f"{route}_{figure}": statistics.median(run[figure] for run in found)
            for route, found in runs.items()
            for figure in ("seconds", "cpu_seconds", "bytes")
        },
    }


def table(measured: list[dict[str, Any]]) -> str:
    """A line per size."""
    lines = [
        ("impressions", "seconds", "per million", "CPU s per million", "memory", "scikit-learn", "memory")
    ]
    for found in measured:
        millions = found["rows"] / 1e6
        lines.append(
            (
                f"{found['rows']:,}",
                f"{found['ours_seconds']:.1f}",
                f"{found['ours_seconds'] / millions:.2f}",
                f"{found['ours_cpu_seconds'] / millions:.2f}",
                f"{found['ours_bytes'] / 1e9:.1f} GB",
                f"{found['scikit_seconds']:.1f}",
                f"{found['scikit_bytes'] / 1e9:.1f} GB",
            )
        )
    return "\n".join(with_rule(aligned(lines, left=0)))


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    measured = [measure(args, size) for size in args.sizes]
    print(table(measured))
    print(
        "ours: all figures with intervals, after Spark's start; scikit-learn: AUC, PR-AUC, log loss, Brier."
    )
    write_json(str(args.out / "evaluate.json"), {"machine": machine(), "measured": measured})


if __name__ == "__main__":
    exit_with_message(main)
