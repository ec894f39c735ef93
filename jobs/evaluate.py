"""Judge predictions: exact AUC, log loss and calibration of CTR, CVR and CTCVR, written as metrics.json.

    python -m jobs.evaluate --predictions run/predictions --out run/metrics.json --truth raw/truth_test.csv
    spark-submit --properties-file configs/spark/yarn.conf --py-files dist/jobs.zip \\
        jobs/evaluate.py --predictions hdfs://namenode:8020/predictions --out metrics.json

CTR and CTCVR are judged on all impressions, CVR on clicked ones. With --truth (the true probabilities
of demo logs) also how close each AUC comes to the best possible one, and pCVR on all impressions.
"""

import argparse
import logging
import sys
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark.sql import SparkSession

from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from jobs import progress
from jobs.evaluation.inputs import check_paths, read_predictions, read_truth, with_truth
from jobs.evaluation.task_metrics import compute_metrics
from jobs.evaluation.text import format_table
from jobs.session import spark_session, task_errors_as_input_errors
from schemas.metrics import Metrics, PredictionSource
from storage.json_files import write_json

SPARK_OPTIONS = {"spark.driver.memory": "2g"}  # in local mode all tasks sort and count in it

LOG = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.evaluate", __doc__)
    parser.add_argument("--predictions", required=True, metavar="DIR", help="written by esmm.predict")
    parser.add_argument("--out", required=True, metavar="FILE", help="metrics.json; replaced if there")
    parser.add_argument("--truth", metavar="FILE", help="truth_<split>.csv of demo logs; may be a glob")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    check_paths(args.predictions, args.truth)
    spark = spark_session("evaluate", **SPARK_OPTIONS)
    try:
        with task_errors_as_input_errors(), progress.shown(spark, ("judging predictions",)):
            metrics = run(spark, args)
    finally:
        spark.stop()
    print(format_table(metrics))
    print(f"written to {args.out}")


def run(spark: SparkSession, args: argparse.Namespace) -> Metrics:
    """Read and check the predictions, compute all metrics, write them whole to `args.out`."""
    rows = read_predictions(spark, args.predictions)
    if args.truth:
        truth = read_truth(spark, args.truth, rows)
        rows = with_truth(rows, truth, args.predictions, args.truth)
    LOG.info("computing the metrics of %s", args.predictions)
    metrics = compute_metrics(rows, PredictionSource(predictions=args.predictions, truth=args.truth))
    write_json(args.out, dict(metrics))
    return metrics


if __name__ == "__main__":
    exit_with_message(main)
