"""From checked predictions to the contents of metrics.json: `DataFrame -> Metrics`, no files.

Input columns: click, conversion, p_ctr, p_cvr, p_ctcvr and, where the truth is known, true_p_ctr and
true_p_cvr. Sums are taken in whole numbers of 2^-40, so that they do not depend on the order of rows.
"""

from math import sqrt
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from cli.version import WRITTEN_BY
from jobs.evaluation.auc import Pairs, Ranking, compute_auc
from schemas.metrics import AllImpressions, Calibration, Metrics, PredictionSource, TaskMetrics

# A probability of exactly 0 or 1 against the other label would cost infinitely much: take float32's
# neighbours instead. No other float32 is changed.
SMALLEST_FLOAT32 = 2.0**-149
FLOAT32_BELOW_ONE = 1 - 2.0**-24

SUM_UNIT = 1 << 40
WEIGHT_UNIT = 1 << 20  # of a true p_cvr, where an impression counts as p positives and 1 - p negatives


class Task(NamedTuple):
    """predicted, true: probabilities; label: 0 or 1; judged: whether the impression counts."""

    name: str
    predicted: Column
    true: Column
    label: Column
    judged: Column


def _tasks() -> tuple[Task, ...]:
    click = F.col("click").cast("long")
    conversion = F.col("conversion").cast("long")
    true_ctr = F.col("true_p_ctr")
    true_cvr = F.col("true_p_cvr")
    return (
        Task("ctr", F.col("p_ctr"), true_ctr, click, F.lit(True)),
        Task("cvr", F.col("p_cvr"), true_cvr, conversion, click == 1),
        Task("ctcvr", F.col("p_ctcvr"), true_ctr * true_cvr, click * conversion, F.lit(True)),
    )


def compute_metrics(rows: DataFrame, source: PredictionSource) -> Metrics:
    """All metrics of checked predictions, in two Spark jobs."""
    with_truth = "true_p_cvr" in rows.columns
    pairs = compute_auc(rows, _rankings(with_truth))
    sums = rows.agg(*_sums(with_truth)).collect()[0].asDict()
    metrics = Metrics(
        ctr=_task_metrics("ctr", pairs, sums),
        cvr=_task_metrics("cvr", pairs, sums),
        ctcvr=_task_metrics("ctcvr", pairs, sums),
        source=source,
        written_by=WRITTEN_BY,
    )
    if with_truth:
        metrics["cvr_all_impressions"] = _all_impressions(pairs, sums)
    return metrics


def _rankings(with_truth: bool) -> list[Ranking]:
    rankings = []
    for task in _tasks():
        judged = task.judged.cast("long")
        classes = (judged * task.label, judged * (1 - task.label))
        rankings.append(Ranking(task.name, task.predicted, *classes))
        if with_truth:
            rankings.append(Ranking(f"best_{task.name}", task.true, *classes))
    if with_truth:
        converting = F.rint(F.col("true_p_cvr") * WEIGHT_UNIT).cast("long")
        classes = (converting, WEIGHT_UNIT - converting)
        rankings.append(Ranking("cvr_all_impressions", F.col("p_cvr"), *classes))
        rankings.append(Ranking("best_cvr_all_impressions", F.col("true_p_cvr"), *classes))
    return rankings


def _sums(with_truth: bool) -> list[Column]:
    columns = []
    for task in _tasks():
        columns += [
            F.count_if(task.judged).alias(f"{task.name}_rows"),
            _sum_where(task.judged, task.predicted).alias(f"{task.name}_predicted"),
            _sum_where(task.judged, _log_loss(task)).alias(f"{task.name}_log_loss"),
        ]
    if with_truth:
        click = F.col("click")
        for name, condition in (("all", F.lit(True)), ("clicked", click == 1), ("unclicked", click == 0)):
            columns += [
                F.count_if(condition).alias(f"{name}_rows"),
                _sum_where(condition, F.col("p_cvr")).alias(f"{name}_predicted"),
                _sum_where(condition, F.col("true_p_cvr")).alias(f"{name}_true"),
            ]
    return columns


def _sum_where(condition: Column, value: Column) -> Column:
    """Sum in units of 2^-40, as a decimal: 64 bits would hold only some million rows."""
    units = F.rint(value.cast("double") * SUM_UNIT).cast("long").cast("decimal(19,0)")
    return F.sum(F.when(condition, units))


def _log_loss(task: Task) -> Column:
    p = F.least(F.greatest(task.predicted.cast("double"), F.lit(SMALLEST_FLOAT32)), F.lit(FLOAT32_BELOW_ONE))
    return F.when(task.label == 1, -F.log(p)).otherwise(-F.log1p(-p))


def _mean(total: Any, rows: int) -> float | None:
    return int(total) / (rows * SUM_UNIT) if rows else None


def _task_metrics(name: str, pairs: dict[str, Pairs], sums: dict[str, Any]) -> TaskMetrics:
    own = pairs[name]
    rows = sums[f"{name}_rows"]
    metrics = TaskMetrics(
        auc=own.auc,
        auc_standard_error=standard_error(own),
        log_loss=_mean(sums[f"{name}_log_loss"], rows),
        rows=rows,
        positives=own.positives,
        mean_predicted=_mean(sums[f"{name}_predicted"], rows),
        mean_actual=own.positives / rows if rows else None,
    )
    best = pairs.get(f"best_{name}")
    if best is not None:
        metrics["best_auc"] = best.auc
        metrics["share_of_best"] = _share_of_best(own, best)
    reason = _reason(own, best)
    if reason:
        metrics["reason"] = reason
    return metrics


def _all_impressions(pairs: dict[str, Pairs], sums: dict[str, Any]) -> AllImpressions:
    own = pairs["cvr_all_impressions"]
    best = pairs["best_cvr_all_impressions"]
    metrics = AllImpressions(
        auc=own.auc,
        best_auc=best.auc,
        share_of_best=_share_of_best(own, best),
        all=_calibration("all", sums),
        clicked=_calibration("clicked", sums),
        unclicked=_calibration("unclicked", sums),
    )
    reason = _reason(own, best)
    if reason:
        metrics["reason"] = reason
    return metrics


def _calibration(name: str, sums: dict[str, Any]) -> Calibration:
    rows = sums[f"{name}_rows"]
    predicted, true = (_mean(sums[f"{name}_{kind}"], rows) for kind in ("predicted", "true"))
    return Calibration(rows=rows, mean_predicted=predicted, mean_true=true)


def _share_of_best(own: Pairs, best: Pairs) -> float | None:
    if own.auc is None or best.auc is None or best.auc <= 0.5:
        return None
    return (own.auc - 0.5) / (best.auc - 0.5)


def _reason(own: Pairs, best: Pairs | None) -> str | None:
    """Why some value is null, or None where none is."""
    if own.auc is None:
        missing = [name for name in ("positives", "negatives") if not getattr(own, name)]
        return f"no {' and no '.join(missing)}: the AUC is undefined"
    if best is not None and best.auc is not None and best.auc <= 0.5:
        return "the true probabilities rank no better than chance: there is no share of the best AUC"
    return None


def standard_error(pairs: Pairs) -> float | None:
    """Standard error of an AUC by Hanley and McNeil, Radiology 143 (1982), 29-36; None if undefined."""
    auc = pairs.auc
    positives = pairs.positives
    negatives = pairs.negatives
    if auc is None:
        return None
    two_positives = auc / (2 - auc)  # chance that two positives both rank above one negative
    two_negatives = 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc)
        + (positives - 1) * (two_positives - auc**2)
        + (negatives - 1) * (two_negatives - auc**2)
    )
    return sqrt(variance / (positives * negatives))
