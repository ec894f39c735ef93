"""Judge predictions: every metric of CTR, CVR and CTCVR with its interval, written as metrics.json.

    python -m jobs.evaluate --predictions run/predictions --out run/metrics.json --truth raw/truth_test.csv
    python -m jobs.evaluate --predictions new/predictions --out new/metrics.json --against old --slice 301
    spark-submit --properties-file configs/spark/yarn.conf --py-files dist/jobs.zip \\
        jobs/evaluate.py --predictions hdfs://namenode:8020/predictions --out metrics.json

CTR and CTCVR are judged on all impressions, CVR on clicked ones. Intervals are of 95 %, with users as
clusters; what they are made of is left beside the metrics, in metrics.users/. --against compares with
another evaluation of the same impressions, figure by figure. With --truth (the true probabilities of demo
logs) also how close each AUC comes to the best possible one, and pCVR on all impressions.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from jobs import progress
from jobs.evaluation.cuts import Cut
from jobs.evaluation.inputs import check_paths
from jobs.evaluation.run import Options, evaluate, read_other
from jobs.evaluation.stages import SPARK_OPTIONS
from jobs.evaluation.sums_files import OUTPUT, folder_of
from jobs.evaluation.text import format_metrics
from jobs.evaluation.truth import check_truth
from jobs.session import spark_session, task_errors_as_input_errors
from schemas.predictions import KEPT_FIELD
from storage import outputs

STAGES = ("reading predictions", "dealing them to users", "ranking", "adding up by user")

IMPRESSIONS_OF_USER = Cut("impressions of the user", None, (10, 50, 200))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.evaluate", __doc__)
    parser.add_argument("--predictions", required=True, metavar="DIR", help="written by esmm.predict")
    parser.add_argument("--out", required=True, metavar="FILE", help="metrics.json; replaced if there")
    parser.add_argument("--truth", metavar="FILE", help="truth_<split>.csv of demo logs; may be a glob")
    parser.add_argument(
        "--against",
        metavar="RUN",
        help="another evaluation of the same impressions: metrics.json or the folder around it",
    )
    parser.add_argument(
        "--slice",
        action="append",
        default=[],
        dest="cuts",
        type=cut_of,
        metavar="FIELD[:BOUNDS]",
        help="figures by a field that esmm.predict --keep has kept, by its most frequent values or, as in "
        "205:10,20,50, by ranges that end at these; may be repeated",
    )
    return parser.parse_args(argv)


def cut_of(text: str) -> Cut:
    """A cut as the command line writes it."""
    field, _, ends = text.partition(":")
    try:
        bounds = tuple(int(end) for end in ends.split(",")) if ends else ()
    except ValueError:
        bounds = (0, 0)
    if not field or list(bounds) != sorted(set(bounds)):
        raise argparse.ArgumentTypeError(
            f"expected FIELD or FIELD:10,20,50 with rising bounds, found {text!r}"
        )
    return Cut(field, f"{KEPT_FIELD}{field}", bounds)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    options = Options(args.predictions, args.out, args.truth, args.against, [IMPRESSIONS_OF_USER, *args.cuts])
    check(options)
    spark = spark_session("evaluate", **SPARK_OPTIONS)
    try:
        with task_errors_as_input_errors(), progress.shown(spark, STAGES):
            metrics = evaluate(spark, options)
    finally:
        spark.stop()
    print(format_metrics(metrics))
    print(f"written to {args.out}")


def check(options: Options) -> None:
    """Stop before Spark starts where an input is not there or not whole, or the output is something else."""
    check_paths(options.predictions)
    if options.truth is not None:
        check_truth(options.truth)
    outputs.refuse_foreign(folder_of(options.out), OUTPUT)
    if options.against is not None:
        read_other(options.against)


if __name__ == "__main__":
    exit_with_message(main)
