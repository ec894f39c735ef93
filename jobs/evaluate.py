"""Judge predictions: exact AUC, log loss and calibration of CTR, CVR and CTCVR, written as metrics.json.

CTR and CTCVR are judged on all impressions, CVR on clicked ones. With --truth (the true probabilities
of demo logs) also how close each AUC comes to the best possible one, and pCVR on all impressions.

    python -m jobs.evaluate --predictions run/predictions --out run/metrics.json --truth raw/truth_test.csv
    spark-submit --properties-file configs/spark/yarn.conf --py-files dist/jobs.zip \\
        jobs/evaluate.py --predictions webhdfs://namenode:9870/predictions --out metrics.json
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark.sql import SparkSession

from cli.errors import exit_with_message
from jobs.evaluation.inputs import check_paths, read_predictions, read_truth, with_truth
from jobs.evaluation.task_metrics import compute_metrics
from jobs.session import spark_session, task_errors_as_input_errors
from schemas.metrics import OVER, Metrics, PredictionSource
from storage.json_files import write_json

SPARK_OPTIONS = {"spark.driver.memory": "2g"}  # in local mode all tasks sort and count in it

log = logging.getLogger("evaluate")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(
        prog="jobs.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--predictions", required=True, metavar="DIR", help="written by esmm.predict")
    parser.add_argument("--out", required=True, metavar="FILE", help="metrics.json; replaced if there")
    parser.add_argument("--truth", metavar="FILE", help="truth_<split>.csv of demo logs; may be a glob")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    check_paths(args.predictions, args.truth)
    spark = spark_session("evaluate", **SPARK_OPTIONS)
    try:
        with task_errors_as_input_errors():
            metrics = run(spark, args)
    finally:
        spark.stop()
    print(format_table(metrics))
    print(f"written to {args.out}")


def run(spark: SparkSession, args: argparse.Namespace) -> Metrics:
    """Read and check the predictions, compute all metrics, write them whole to `args.out`."""
    rows = read_predictions(spark, args.predictions)
    if args.truth:
        truth = read_truth(spark, args.truth)
        rows = with_truth(rows, truth, args.predictions, args.truth)
    log.info("computing the metrics of %s", args.predictions)
    metrics = compute_metrics(rows, PredictionSource(predictions=args.predictions, truth=args.truth))
    write_json(args.out, dict(metrics))
    return metrics


HEADINGS = (
    "task",
    "impressions",
    "AUC",
    "+-",
    "best",
    "share",
    "rows",
    "positives",
    "log loss",
    "pred.",
    "actual",
)


def format_table(metrics: Metrics) -> str:
    """The metrics for a person: which task over which impressions, against the best reachable AUC."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for name in ("ctr", "cvr", "ctcvr"):
        task = metrics[name]
        lines.append(
            (
                name.upper(),
                OVER[name],
                _number(task["auc"], ".4f"),
                _number(task["auc_standard_error"], ".4f"),
                _number(task.get("best_auc"), ".4f"),
                _number(task.get("share_of_best"), ".1%"),
                f"{task['rows']:,}",
                f"{task['positives']:,}",
                _number(task["log_loss"], ".5f"),
                _number(task["mean_predicted"], ".5f"),
                _number(task["mean_actual"], ".5f"),
            )
        )
    if "cvr_all_impressions" in metrics:
        lines.append(_all_impressions_line(metrics))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [_aligned(line, widths) for line in lines]
    return "\n".join([table[0], "-" * len(table[0]), *table[1:], *_reasons(metrics)])


def _all_impressions_line(metrics: Metrics) -> tuple[str, ...]:
    judged = metrics["cvr_all_impressions"]
    calibration = judged["all"]
    aucs = (_number(judged["auc"], ".4f"), "-", _number(judged["best_auc"], ".4f"))
    means = (_number(calibration["mean_predicted"], ".5f"), _number(calibration["mean_true"], ".5f"))
    share = _number(judged["share_of_best"], ".1%")
    return ("CVR", OVER["cvr_all_impressions"], *aucs, share, f"{calibration['rows']:,}", "-", "-", *means)


def _reasons(metrics: Metrics) -> list[str]:
    parts: dict[str, Any] = dict(metrics)
    return [f"{name}: {part['reason']}" for name, part in parts.items() if "reason" in part]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    texts = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
    numbers = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
    return "  ".join(texts + numbers)


if __name__ == "__main__":
    exit_with_message(main)
