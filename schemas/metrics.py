"""The contract of `metrics.json`, written by jobs.evaluate.

A value that does not exist is null, never a stand-in number, and `reason` then says why: the AUC of
a task without positives or negatives, means over no rows. `reason` is absent where nothing is null.
The `best_...` and `share_...` keys and `cvr_all_impressions` are there only with `--truth`.
"""

from typing import NotRequired, TypedDict


class TaskMetrics(TypedDict):
    """One task: predicted probability against a label, over the impressions it is judged on."""

    auc: float | None
    auc_standard_error: float | None
    log_loss: float | None
    rows: int
    positives: int
    mean_predicted: float | None
    mean_actual: float | None
    best_auc: NotRequired[float | None]
    share_of_best: NotRequired[float | None]
    reason: NotRequired[str]


class Calibration(TypedDict):
    """Mean of the predicted and of the true p_cvr over some impressions."""

    rows: int
    mean_predicted: float | None
    mean_true: float | None


class AllImpressions(TypedDict):
    """p_cvr judged by the true p_cvr on all impressions: the space that clicked impressions only sample."""

    auc: float | None
    best_auc: float | None
    share_of_best: float | None
    all: Calibration
    clicked: Calibration
    unclicked: Calibration
    reason: NotRequired[str]


class PredictionSource(TypedDict):
    """The paths as they were given."""

    predictions: str
    truth: str | None


class Metrics(TypedDict):
    """metrics.json as a whole."""

    ctr: TaskMetrics
    cvr: TaskMetrics
    ctcvr: TaskMetrics
    cvr_all_impressions: NotRequired[AllImpressions]
    source: PredictionSource
    written_by: NotRequired[str]


# Which impressions a task is judged on, to stand beside its numbers in every table.
OVER: dict[str, str] = {
    "ctr": "all",
    "cvr": "clicked",
    "ctcvr": "all",
    "cvr_all_impressions": "all, by true p_cvr",
}

MEANING: dict[str, str] = {
    "auc": "probability that a positive scores above a negative, ties counting one half; exact",
    "auc_standard_error": "standard error of auc after Hanley and McNeil (1982)",
    "log_loss": "mean of -ln p(label), natural logarithm; p = 0 and p = 1 taken as their float32 neighbours",
    "rows": "impressions the task is judged on",
    "positives": "of these, the ones with label 1 (ctr: click; cvr: conversion; ctcvr: click and conversion)",
    "mean_predicted": "mean predicted probability",
    "mean_actual": "positives / rows; well calibrated where mean_predicted equals it",
    "best_auc": "auc of the true probabilities as scores against the same labels: the best to hope for",
    "share_of_best": "(auc - 0.5) / (best_auc - 0.5)",
    "mean_true": "mean true probability",
    "cvr_all_impressions.auc": "expected auc of p_cvr if every impression converted with its true p_cvr: "
    "an impression counts as p_cvr positives and 1 - p_cvr negatives",
    "reason": "why a value is null",
    "written_by": "name and version of what wrote the file; not in the first releases",
}
