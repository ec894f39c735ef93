"""From the figures to the contents of metrics.json: intervals, baselines, curves. No files, no Spark."""

from collections.abc import Mapping
from math import exp, lgamma, log, log1p, pi, sqrt

import numpy as np
import numpy.typing as npt

from jobs.evaluation import scores
from jobs.evaluation.blobs import Arrays
from jobs.evaluation.figures import Figure, entropy, standard_error
from jobs.evaluation.judging import Judged, summary_bins
from jobs.evaluation.rankings import Totals
from schemas.metrics import Baseline, Bin, Curves, Estimate, ScoreRange, TaskMetrics

Floats = npt.NDArray[np.float64]

Z = 1.959963984540054  # of a two-sided interval of 95 %
RANGES_PER_STEP = 4  # of the histogram: a quarter of an octave
EXACT_BELOW = 1000  # expected positives of a bin, above which they are as good as normal


def estimates_of(task: Judged) -> dict[str, Estimate]:
    """The figures with their intervals."""
    return {
        name: _estimate(figure, _error(name, task), 1.0 if name in _SHARES else None)
        for name, figure in task.figures.items()
    }


def _error(name: str, task: Judged) -> float | None:
    if name in task.replicates:
        return float(np.std(task.replicates[name], ddof=1)) if task.sums.users > 1 else None
    return standard_error(task.figures[name], task.sums)


# What lies in [0, 1], so that its interval does; the others are only above 0.
_SHARES = ("auc", "pr_auc", "gauc", "gauc_equal", "brier", "ece")


def _estimate(figure: Figure, error: float | None, most: float | None) -> Estimate:
    if figure.value is None:
        return Estimate(value=None, low=None, high=None, reason=figure.reason or "undefined")
    if error is None:
        reason = "one user alone: there is no interval"
        return Estimate(value=figure.value, low=None, high=None, reason=reason)
    return interval(figure.value, error, most)


def interval(value: float, error: float, most: float | None) -> Estimate:
    """A figure with the interval of its standard error, cut off at 0 and, where there is one, at `most`."""
    high = value + Z * error
    return Estimate(
        value=value, low=max(value - Z * error, 0.0), high=high if most is None else min(high, most)
    )


def task_metrics(task: Judged, baselines: Mapping[str, Baseline]) -> TaskMetrics:
    """A task as metrics.json has it. baselines: besides the constant one."""
    rows = task.sums.rows
    rate = task.sums.positives / rows if rows else None
    estimates = estimates_of(task)
    return TaskMetrics(
        rows=rows,
        positives=task.sums.positives,
        users=task.sums.users,
        mean_predicted=task.sums.sum_of("predicted") / rows if rows else None,
        mean_actual=rate,
        auc=estimates["auc"],
        pr_auc=estimates["pr_auc"],
        log_loss=estimates["log_loss"],
        normalised_entropy=estimates["normalised_entropy"],
        scaled_normalised_entropy=estimates["scaled_normalised_entropy"],
        brier=estimates["brier"],
        calibration_ratio=estimates["calibration_ratio"],
        ece=estimates["ece"],
        gauc=estimates["gauc"],
        gauc_equal=estimates["gauc_equal"],
        ece_of_calibrated=ece_of_calibrated(task.summary) if rows else None,
        gauc_users=round(task.sums.sum_of("both")),
        baselines={"constant": _constant(rate), **baselines},
        curves=curves_of(task),
    )


def _constant(rate: float | None) -> Baseline:
    """The mean label as every impression's score."""
    if rate is None:
        return Baseline(
            auc=None, pr_auc=None, log_loss=None, normalised_entropy=None, brier=None, calibration_ratio=None
        )
    varied = 0 < rate < 1
    return Baseline(
        auc=0.5 if varied else None,
        pr_auc=rate if varied else None,
        log_loss=entropy(rate) if varied else 0.0,
        normalised_entropy=1.0 if varied else None,
        brier=rate * (1 - rate),
        calibration_ratio=1.0 if rate else None,
    )


def ece_of_calibrated(summary: Arrays) -> float:
    """The ECE to expect where every bin's labels are drawn with its mean prediction: noise alone.

    Per bin E|X - n p| of a binomial X; exactly by de Moivre's formula where few positives are expected.
    """
    rows, _, predicted = (part.sum(1) for part in summary_bins(summary))
    gaps = [_mean_deviation(round(n), p / n) for n, p in zip(rows, predicted, strict=True) if n]
    return float(sum(gaps) / rows.sum())


def _mean_deviation(n: int, p: float) -> float:
    """E|X - n p| of a binomial X. Diaconis and Zabell, Statistical Science 6 (1991), 284-302."""
    p = min(p, 1.0)
    if p in (0.0, 1.0):
        return 0.0
    if n * min(p, 1 - p) > EXACT_BELOW:
        return sqrt(2 * n * p * (1 - p) / pi)
    above = int(n * p) + 1
    ways = lgamma(n + 1) - lgamma(above + 1) - lgamma(n - above + 1)
    return 2 * above * exp(ways + above * log(p) + (n - above + 1) * log1p(-p))


def curves_of(task: Judged) -> Curves:
    """What is drawn of a task."""
    if not task.sums.rows:
        return Curves(roc=[], pr=[], calibration=[], histogram=[])
    summary = task.summary
    order = np.lexsort((summary["point_true"], summary["point_false"]))
    false = summary["point_false"][order].astype(np.float64)
    true = summary["point_true"][order].astype(np.float64)
    roc, pr = [], []
    if task.sums.positives and task.sums.negatives:
        roc = [(0.0, 0.0), *zip(false / task.sums.negatives, true / task.sums.positives, strict=True)]
        hit = true > 0
        recall, precision = true[hit] / task.sums.positives, true[hit] / (true[hit] + false[hit])
        pr = list(zip(recall, precision, strict=True))
    return Curves(
        roc=[(float(x), float(y)) for x, y in roc],
        pr=[(float(x), float(y)) for x, y in pr],
        calibration=bins_of(*summary_bins(summary)),
        histogram=_histogram(task.totals),
    )


def bins_of(rows: Floats, positives: Floats, predicted: Floats) -> list[Bin]:
    """Bins that have rows, with the interval of their mean label by groups of users. All [bins, groups]."""
    found = []
    for n, y, p in zip(rows, positives, predicted, strict=True):
        size = n.sum()
        if size == 0:
            continue
        mean = y.sum() / size
        clusters = np.count_nonzero(n)
        spread = float(((y - mean * n) ** 2).sum()) * clusters / max(clusters - 1, 1)
        margin = Z * sqrt(spread) / size
        found.append(
            Bin(
                rows=int(size),
                positives=round(y.sum()),
                mean_predicted=float(p.sum() / size),
                mean_actual=float(mean),
                low=max(float(mean - margin), 0.0),
                high=min(float(mean + margin), 1.0),
            )
        )
    return found


def _histogram(totals: Totals) -> list[ScoreRange]:
    """Quarters of octaves, from the first that has rows to the last. What is below all of them, and 1, count
    with their neighbours."""
    inner = totals.counts[0][0].copy()
    inner[1] += inner[0]
    inner[-2] += inner[-1]
    steps = inner[1:-1].reshape(-1, RANGES_PER_STEP, 2).sum(axis=1)
    used = np.flatnonzero(steps.sum(axis=1))
    return [
        ScoreRange(
            low=scores.lowest_of(1 + step * RANGES_PER_STEP),
            high=scores.lowest_of(1 + (step + 1) * RANGES_PER_STEP),
            rows=int(steps[step].sum()),
            positives=int(steps[step, 0]),
        )
        for step in range(used[0], used[-1] + 1)
    ]


def baseline_of(name: str, totals: Totals, summary: Arrays, found: Arrays) -> Baseline:
    """Other scores than the model's, rounded to float32 as predictions are. name: of their ranking."""
    positives, negatives = totals.classes
    rows = positives + negatives
    if not rows:
        return _constant(None)
    varied = bool(positives and negatives)
    sums = {
        what: int(found[f"{name}_{what}"][0]) / scores.UNIT for what in ("predicted", "log_loss", "squares")
    }
    loss = sums["log_loss"] / rows
    return Baseline(
        auc=float(summary["wins"][0]) / (2 * positives * negatives) if varied else None,
        pr_auc=float(summary["precision"].sum()) / positives if varied else None,
        log_loss=loss,
        normalised_entropy=loss / entropy(positives / rows) if varied else None,
        brier=sums["squares"] / rows,
        calibration_ratio=sums["predicted"] / positives if positives else None,
    )


def share_of_best(auc: float | None, best: float | None) -> float | None:
    """(auc - 0.5) / (best - 0.5); None where the truth ranks no better than chance."""
    return None if auc is None or best is None or best <= 0.5 else (auc - 0.5) / (best - 0.5)
