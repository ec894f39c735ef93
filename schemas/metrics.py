"""The contract of `metrics.json`, written by jobs.evaluate, and of the sums of users beside it.

A figure that does not exist is null, never a stand-in number, and its `reason` then says why: the AUC of a
task without positives or negatives, means over no rows. Intervals are of 95 % and clustered by user
(docs/metrics.md); that of a figure is null where it has none. What needs `--truth`, `--train`, `--against`
or slices is absent without.
"""

from typing import Literal, NotRequired, TypedDict, cast

from cli.errors import InputError
from schemas import calibration
from storage.json_files import read_json

FORMAT = 2  # of metrics.json; the first had bare numbers without intervals

TASKS = ("ctr", "cvr", "ctcvr")


class Estimate(TypedDict):
    """A figure with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    reason: NotRequired[str]


class Bin(TypedDict):
    """Impressions of neighbouring scores, about as many in each bin; tied scores stay together."""

    rows: int
    positives: int
    mean_predicted: float
    mean_actual: float
    low: float  # 95 % interval of mean_actual, clustered by user
    high: float


class ScoreRange(TypedDict):
    """Impressions with low <= score < high; four ranges to an octave. What lies beyond counts at the ends."""

    low: float
    high: float
    rows: int
    positives: int


class Curves(TypedDict):
    """What is drawn of a task; at most 200 points each, all of them points of the exact curves."""

    roc: list[tuple[float, float]]  # false positive rate, true positive rate; from (0, 0) to (1, 1)
    pr: list[tuple[float, float]]  # recall, precision; by falling score
    calibration: list[Bin]  # by rising score
    histogram: list[ScoreRange]


class Baseline(TypedDict):
    """Another score of the same impressions against the same labels. What it cannot have is null."""

    auc: float | None
    pr_auc: float | None
    log_loss: float | None
    normalised_entropy: float | None
    brier: float | None
    calibration_ratio: float | None


class TaskMetrics(TypedDict):
    """One task: predicted probability against a label, over the impressions it is judged on (`OVER`)."""

    rows: int
    positives: int
    users: int
    mean_predicted: float | None
    mean_actual: float | None
    auc: Estimate
    pr_auc: Estimate
    log_loss: Estimate
    normalised_entropy: Estimate
    scaled_normalised_entropy: Estimate
    brier: Estimate
    calibration_ratio: Estimate
    ece: Estimate
    ece_of_calibrated: float | None
    gauc: Estimate
    gauc_equal: Estimate
    gauc_users: int
    baselines: dict[str, Baseline]  # "constant", with --truth "truth", with --train "item_rate"
    share_of_best: NotRequired[float | None]
    curves: Curves


class Calibration(TypedDict):
    """Mean of the predicted and of the true p_cvr over some impressions."""

    rows: int
    mean_predicted: float | None
    mean_true: float | None


class AllImpressions(TypedDict):
    """p_cvr judged by the true p_cvr on all impressions: the space that clicked impressions only sample.

    calibration: mean_actual is the mean of the true p_cvr there, which is known: its interval is itself.
    """

    auc: float | None
    best_auc: float | None
    share_of_best: float | None
    unclicked_auc: float | None
    best_unclicked_auc: float | None
    all: Calibration
    clicked: Calibration
    unclicked: Calibration
    calibration: list[Bin]
    reason: NotRequired[str]


class SliceTask(TypedDict):
    """A task on the impressions of a slice."""

    rows: int
    positives: int
    auc: Estimate
    calibration_ratio: Estimate


class Slice(TypedDict):
    """Some of the impressions: those whose `Slicing` gives them this label."""

    label: str
    small: bool  # too few positives of some task for its figures to say much
    ctr: SliceTask
    cvr: SliceTask
    ctcvr: SliceTask


class Slicing(TypedDict):
    """All impressions, dealt to slices by one property."""

    name: str
    slices: list[Slice]


Verdict = Literal["better", "worse", "not distinguishable"]


class Difference(TypedDict):
    """A figure of this evaluation minus that of the other one, on the same impressions.

    smallest: what this set could have shown with a chance of 80 %.
    """

    value: float | None
    low: float | None
    high: float | None
    smallest: float | None
    verdict: Verdict | None  # None where the figure is undefined or neither direction is better
    reason: NotRequired[str]


class Against(TypedDict):
    """The comparison with another evaluation of the same impressions; per task `COMPARED`."""

    run: str
    ctr: dict[str, Difference]
    cvr: dict[str, Difference]
    ctcvr: dict[str, Difference]


class PredictionSource(TypedDict):
    """The paths as they were given. digest: of all sample_ids with their labels, whatever their order."""

    predictions: str
    truth: str | None
    train: NotRequired[str]
    run: str | None  # of the predictions' manifest, where it has one
    step: int | None
    digest: str
    calibration: NotRequired[calibration.Calibration]  # that the probabilities have gone through


class Metrics(TypedDict):
    """metrics.json as a whole."""

    format: int
    ctr: TaskMetrics
    cvr: TaskMetrics
    ctcvr: TaskMetrics
    cvr_all_impressions: NotRequired[AllImpressions]
    slicings: list[Slicing]
    against: NotRequired[Against]
    source: PredictionSource
    written_by: str


def read_metrics(path: str) -> Metrics:
    """An evaluation of this release's format."""
    try:
        found = read_json(path)
    except InputError as error:
        raise InputError(f"{error} Evaluate again: python -m jobs.evaluate.") from error
    if found.get("format") != FORMAT:
        raise InputError(
            f"{path}: expected metrics of format {FORMAT}, found {found.get('format', 1)}. Evaluate again: "
            "python -m jobs.evaluate."
        )
    missing = [key for key in (*TASKS, "slicings", "source", "written_by") if key not in found]
    if missing:
        raise InputError(f"{path}: expected {', '.join(missing)}, found none. Evaluate again.")
    return cast(Metrics, found)


# Which impressions a task is judged on, to stand beside its numbers in every table.
OVER: dict[str, str] = {
    "ctr": "all",
    "cvr": "clicked",
    "ctcvr": "all",
    "cvr_all_impressions": "all, by true p_cvr",
}

# Figures of a task that have an interval, in the order of tables; with which direction is better.
COMPARED: dict[str, Literal["higher", "lower", "nearer to 1"]] = {
    "auc": "higher",
    "gauc": "higher",
    "gauc_equal": "higher",
    "pr_auc": "higher",
    "log_loss": "lower",
    "normalised_entropy": "lower",
    "scaled_normalised_entropy": "lower",
    "brier": "lower",
    "calibration_ratio": "nearer to 1",
    "ece": "lower",
}

TITLES: dict[str, str] = {
    "auc": "AUC",
    "gauc": "GAUC",
    "gauc_equal": "GAUC, users alike",
    "pr_auc": "PR-AUC",
    "log_loss": "log loss",
    "normalised_entropy": "normalised entropy",
    "scaled_normalised_entropy": "the same, scaled",
    "brier": "Brier score",
    "calibration_ratio": "calibration ratio",
    "ece": "ECE",
}

MEANING: dict[str, str] = {
    "rows": "impressions the task is judged on",
    "positives": "of these, the ones with label 1 (ctr: click; cvr: conversion; ctcvr: click and conversion)",
    "users": "clusters of the intervals: users, and contexts without a user",
    "mean_predicted": "mean predicted probability",
    "mean_actual": "positives / rows",
    "auc": "probability that a positive scores above a negative, ties counting one half; exact",
    "pr_auc": "average precision: precision at each positive's score, averaged over positives; exact",
    "log_loss": "mean of -ln p(label), natural logarithm; p = 0 and p = 1 taken as their float32 neighbours",
    "normalised_entropy": "log_loss / entropy of mean_actual: below 1 is better than the constant rate",
    "scaled_normalised_entropy": "the same after scaling all p by mean_actual / mean_predicted: what is left "
    "is ranking and shape",
    "brier": "mean of (p - label)^2",
    "calibration_ratio": "sum of p / sum of labels: 1 is calibrated in the mean",
    "ece": "expected calibration error: |mean p - mean label| of equally large bins, averaged by rows",
    "ece_of_calibrated": "what a perfectly calibrated model of this size would get as ece: noise alone",
    "gauc": "mean AUC within users who have both classes, weighted by their impressions",
    "gauc_equal": "the same with every such user weighing the same",
    "gauc_users": "users with both classes",
    "share_of_best": "(auc - 0.5) / (auc of the true probabilities - 0.5)",
    "mean_true": "mean true probability",
    "cvr_all_impressions.unclicked_auc": "the same on unclicked impressions, where no label tells of a "
    "conversion",
    "cvr_all_impressions.auc": "expected auc of p_cvr if every impression converted with its true p_cvr: "
    "an impression counts as p_cvr positives and 1 - p_cvr negatives",
    "reason": "why a value is null",
    "written_by": "name and version of what wrote the file",
}
