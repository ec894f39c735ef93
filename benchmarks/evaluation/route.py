"""One route from predictions to metrics, in a process of its own; prints its figures as a line of JSON.

    python -m benchmarks.evaluation.route ours --predictions run/predictions --out m.json
    python -m benchmarks.evaluation.route scikit --predictions run/predictions --out m.json

Seconds are those of the work: the start of Spark is not counted, nor that of Python.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from benchmarks.common.process_tree import MemoryMarks, cpu_seconds
from cli.arguments import CommandParser
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.inputs import check_paths
from jobs.evaluation.run import Options, evaluate
from jobs.evaluation.stages import SPARK_OPTIONS
from jobs.session import spark_session

SECONDS_BETWEEN_SAMPLES = 0.5


def parse_arguments() -> argparse.Namespace:
    parser = CommandParser("benchmarks.evaluation.route", __doc__)
    parser.add_argument("route", choices=["ours", "scikit"])
    parser.add_argument("--predictions", required=True, metavar="DIR")
    parser.add_argument("--out", required=True, metavar="FILE")
    return parser.parse_args()


@contextmanager
def watched() -> Iterator[MemoryMarks]:
    """The memory of this process and all below it, sampled while the block runs."""
    marks = MemoryMarks(os.getpid())
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SECONDS_BETWEEN_SAMPLES):
            marks.sample()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield marks
    finally:
        stop.set()
        thread.join()


def ours(predictions: str, out: str) -> tuple[Callable[[], dict[str, float]], Callable[[], None]]:
    """The work after Spark's start, and what ends it."""
    spark = spark_session("bench evaluate", **SPARK_OPTIONS)

    def work() -> dict[str, float]:
        check_paths(predictions)
        found = evaluate(spark, Options(predictions, out, None, None, EvaluateConfig().cuts))
        aucs = {"ctr": found["ctr"], "cvr": found["cvr"], "ctcvr": found["ctcvr"]}
        return {task: metrics["auc"]["value"] or 0.0 for task, metrics in aucs.items()}

    return work, spark.stop


def scikit(predictions: str) -> dict[str, float]:
    """Four figures per task and no interval, all rows in the memory of one process."""
    rows = pq.read_table(predictions, columns=["click", "conversion", "p_ctr", "p_cvr", "p_ctcvr"])
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    clicked = columns["click"] == 1
    tasks = {
        "ctr": (columns["click"], columns["p_ctr"]),
        "cvr": (columns["conversion"][clicked], columns["p_cvr"][clicked]),
        "ctcvr": (columns["conversion"], columns["p_ctcvr"]),
    }
    for label, p in tasks.values():
        average_precision_score(label, p)
        log_loss(label, p)
        brier_score_loss(label, p)
    return {task: float(roc_auc_score(label, p)) for task, (label, p) in tasks.items()}


def _nothing() -> None:
    """What ends a route that has started nothing."""


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    if args.route == "ours":
        work, end = ours(args.predictions, args.out)
    else:
        work, end = partial(scikit, args.predictions), _nothing
    with watched() as marks:
        begin, cpu = time.perf_counter(), sum(cpu_seconds().values())
        aucs = work()
        seconds, cpu = time.perf_counter() - begin, sum(cpu_seconds().values()) - cpu
    end()
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "bytes": marks.total, "auc": aucs}))


if __name__ == "__main__":
    main()
