"""Fit what mends the probabilities of a model: a line per task, from predictions with their labels.

    python -m jobs.fit_calibration --predictions run/predictions_valid --out run/calibration.json

Platt's scaling: logit(q) = a logit(p) + b, by maximum likelihood; CTR on all impressions, CVR on clicked
ones. Labels are taken as they are: the smoothing of Platt (1999) is for small sets, here both labels have to
occur, and to overlap. Fit on impressions that the model was not trained on.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark.sql import DataFrame, SparkSession

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from cli.version import WRITTEN_BY
from jobs import progress
from jobs.calibration import sums
from jobs.calibration.newton import Descent, descend, obstacle
from jobs.evaluation.inputs import check_paths, readable, require_sound
from jobs.evaluation.stages import SPARK_OPTIONS
from jobs.session import spark_session, task_errors_as_input_errors
from schemas.calibration import FORMAT, TASKS, Calibration, Fitted, Line
from schemas.predictions import read_manifest
from storage.json_files import write_json

STAGES = ("reading predictions", "fitting")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.fit_calibration", __doc__)
    parser.add_argument("--predictions", required=True, metavar="DIR", help="written by esmm.predict")
    parser.add_argument("--out", required=True, metavar="FILE", help="the calibration; replaced if there")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    check(args.predictions)
    spark = spark_session("fit_calibration", **SPARK_OPTIONS)
    try:
        with task_errors_as_input_errors(), progress.shown(spark, STAGES):
            fitted = fit(spark, args.predictions)
    finally:
        spark.stop()
    write_json(args.out, dict(fitted))
    for task, line in fitted["tasks"].items():
        print(
            f"{task}: a {line['a']:.4f}, b {line['b']:.4f}; log loss {line['log_loss_before']:.6f} "
            f"-> {line['log_loss_after']:.6f} on {line['rows']:,} rows"
        )
    print(f"written to {args.out}")


def check(predictions: str) -> None:
    """Stop before Spark starts where predictions are not whole, or went through a calibration already."""
    check_paths(predictions)
    if "calibration" in read_manifest(predictions):
        raise InputError(
            f"{predictions}: expected probabilities of a model, found calibrated ones. "
            "Fit on those of the model."
        )


def fit(spark: SparkSession, path: str) -> Calibration:
    """The calibration of checked predictions."""
    rows = sums.packed(spark, path)
    try:
        with readable(path):
            num_rows, num_broken = sums.num_rows(rows)
        require_sound(spark, path, num_rows, num_broken, num_repeated=0)
        lines = _lines(rows, path)
    finally:
        rows.unpersist()
    manifest = read_manifest(path)
    fitted_on: Fitted = {"predictions": path}
    if "run" in manifest and "step" in manifest:
        fitted_on |= {"run": manifest["run"], "step": manifest["step"]}
    return {"format": FORMAT, "tasks": lines, "fitted_on": fitted_on, "written_by": WRITTEN_BY}


def _lines(rows: DataFrame, path: str) -> dict[str, Line]:
    """Of each task; an `InputError` where one has none, or one that would turn the order round."""
    counts = sums.counted(rows)
    for task, count in zip(TASKS, counts, strict=True):
        if problem := obstacle(count):
            raise InputError(
                f"{path}: expected {task} with positives and negatives whose probabilities overlap, found "
                f"{problem}. Fit on more impressions."
            )
    descents = descend(lambda points: sums.summed(rows, points), len(TASKS))
    return {
        task: _line(task, descent, count, path)
        for task, descent, count in zip(TASKS, descents, counts, strict=True)
    }


def _line(task: str, descent: Descent, counts: sums.Counts, path: str) -> Line:
    a, b = (float(x) for x in descent.point)
    if a <= 0:
        raise InputError(
            f"{path}: expected p_{task} to rise with its labels (a above 0), found a = {a:.4g}: calibration "
            "would turn the ranking round. Look at the AUC, and train the model again."
        )
    return {
        "a": a,
        "b": b,
        "rows": counts.rows,
        "positives": counts.positives,
        "log_loss_before": descent.first.loss / counts.rows,
        "log_loss_after": descent.sums.loss / counts.rows,
    }


if __name__ == "__main__":
    exit_with_message(main)
