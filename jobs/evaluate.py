"""Judge predictions: every metric of CTR, CVR and CTCVR with its interval, written as metrics.json.

    python -m jobs.evaluate --predictions run/predictions --out run/metrics.json --truth raw/truth_test.csv
    python -m jobs.evaluate --predictions new/predictions --out new/metrics.json --against old --slice 301
    python -m jobs.evaluate --predictions run/predictions --out run/metrics.json --config configs/demo.yaml \\
        --train samples/split=train
    spark-submit --properties-file configs/spark/yarn.conf --py-files dist/jobs.zip \\
        jobs/evaluate.py --predictions hdfs://namenode:8020/predictions --out metrics.json

CTR and CTCVR are judged on all impressions, CVR on clicked ones. Intervals are of 95 %, with users as
clusters; what they are made of is left beside the metrics, in metrics.users/. --against compares with
another evaluation of the same impressions, figure by figure. With --train (the samples that the model was
trained on) impressions are cut by how often user and item were seen there, and the item's rates there are a
baseline. With --truth (the true probabilities of demo logs) also how close each AUC comes to the best
possible one, and pCVR on all impressions.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from cli.option_help import add_help_options
from jobs import progress
from jobs.evaluation.config import EvaluateConfig, cut_by, load_evaluate_config
from jobs.evaluation.cuts import Cut
from jobs.evaluation.inputs import check_paths
from jobs.evaluation.run import Options, evaluate, read_other
from jobs.evaluation.stages import SPARK_OPTIONS
from jobs.evaluation.sums_files import OUTPUT, folder_of
from jobs.evaluation.text import format_metrics
from jobs.evaluation.training import training_of
from jobs.evaluation.truth import check_truth
from jobs.session import spark_session, task_errors_as_input_errors
from schemas.predictions import read_manifest
from storage import outputs

STAGES = ("reading predictions", "dealing them to users", "ranking", "adding up by user")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.evaluate", __doc__)
    parser.add_argument("--predictions", required=True, metavar="DIR", help="written by esmm.predict")
    parser.add_argument("--out", required=True, metavar="FILE", help="metrics.json; replaced if there")
    parser.add_argument(
        "--truth", metavar="FILE", help="truth_<split>.csv of demo logs, of a day truth.csv; may be a glob"
    )
    parser.add_argument(
        "--against",
        metavar="RUN",
        help="another evaluation of the same impressions: metrics.json or the folder around it; '': none",
    )
    parser.add_argument("--config", metavar="YAML", help="file whose section `evaluate` is used")
    parser.add_argument("--train", metavar="DIR", help="samples that the model was trained on")
    parser.add_argument(
        "--item",
        metavar="FIELD",
        help="the item; default: that of the schema, if predictions have kept it",
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
    add_help_options(parser, {"evaluate": EvaluateConfig})
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
    return cut_by(field, bounds)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    options = options_of(args)
    check(options)
    spark = spark_session("evaluate", **SPARK_OPTIONS)
    try:
        with task_errors_as_input_errors(), progress.shown(spark, STAGES):
            metrics = evaluate(spark, options)
    finally:
        spark.stop()
    print(format_metrics(metrics))
    print(f"written to {args.out}")


def options_of(args: argparse.Namespace) -> Options:
    """What the command line and the configuration say together; a slice of the command line comes before."""
    settings = load_evaluate_config(args.config)
    named = {cut.name for cut in args.cuts}
    cuts = [cut for cut in settings.cuts if cut.name not in named] + args.cuts
    if args.train is None:
        if args.item is not None:
            raise InputError(f"--item {args.item}: expected --train with the training samples, found none.")
        return Options(args.predictions, args.out, args.truth, args.against or None, cuts)
    check_paths(args.predictions)
    told = read_manifest(args.predictions)
    training = training_of(args.train, args.item, settings.train_bounds, args.predictions, told)
    return Options(args.predictions, args.out, args.truth, args.against or None, cuts, training)


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
