"""From what Spark found to the contents of metrics.json. No files, no Spark."""

from collections.abc import Mapping, Sequence
from math import exp, lgamma, log, log1p, pi, sqrt
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from jobs.evaluation import replicates, scores
from jobs.evaluation.blobs import Arrays
from jobs.evaluation.cuts import Cut
from jobs.evaluation.figures import Figure, TaskSums, entropy, figures_of, standard_error
from jobs.evaluation.gram import WIDTH
from jobs.evaluation.rankings import NUM_BINS, TASKS, Totals
from jobs.evaluation.users import NUM_GROUPS
from schemas.metrics import Baseline, Bin, Curves, Estimate, ScoreRange, TaskMetrics

Floats = npt.NDArray[np.float64]

Z = 1.959963984540054  # of a two-sided interval of 95 %
RANGES_PER_STEP = 4  # of the histogram: a quarter of an octave
EXACT_BELOW = 1000  # expected positives of a bin, above which they are as good as normal


class Judged(NamedTuple):
    """The figures of a task. replicates: of those that have no weights."""

    sums: TaskSums
    replicates: dict[str, Floats]
    figures: dict[str, Figure]
    totals: Totals
    summary: Arrays  # of its ranking; nothing of another evaluation


OF_RANKING = ("wins", "precision", "slope")


class Stored(TypedDict):
    """What an evaluation keeps of a task beside the users' sums. of_ranking: by `OF_RANKING`."""

    of_ranking: dict[str, float]
    ece: float | None
    replicates: dict[str, list[float]]


def totals_of(found: Arrays, cuts: Sequence[Cut], names: Sequence[str]) -> dict[str, Totals]:
    """What the rankings have to know, from the sums over shards."""
    totals = {}
    for name in names:
        own = cuts if name in TASKS else ()
        shapes = [(1, scores.NUM_RANGES, 2), *((len(cut.labels), scores.NUM_RANGES, 2) for cut in own)]
        counts = tuple(found[f"{name}_{number}"].reshape(shape) for number, shape in enumerate(shapes))
        predicted = int(found[f"{name}_predicted"][0]) / scores.UNIT if name in TASKS else 0
        positives = int(counts[0][..., 0].sum())
        totals[name] = Totals(counts, positives / predicted if predicted and positives else 1.0)
    return totals


def judge(task: str, totals: Totals, summary: Arrays, sums: Floats, gram: Floats, users: int) -> Judged:
    """All figures of a task. sums [tasks x WIDTH], gram [tasks x WIDTH, same]: over all users."""
    of_ranking = {name: float(summary[name].sum()) if summary else 0.0 for name in OF_RANKING}
    known = _task_sums(task, totals.classes, of_ranking, sums, gram, users)
    if not known.rows:
        return _judged(known, None, {}, totals, summary)
    rows, labels, predicted = _bins(summary)
    ece = float(np.abs(predicted.sum(1) - labels.sum(1)).sum() / known.rows)
    drawn = {
        "ece": replicates.of_ece(rows, labels, predicted),
        "pr_auc": replicates.of_pr_auc(summary["cell_rows"], summary["cell_positives"]),
    }
    return _judged(known, ece, drawn, totals, summary)


def judge_stored(task: str, totals: Totals, stored: Stored, sums: Floats, gram: Floats, users: int) -> Judged:
    """The same of another evaluation of the same impressions, from what it has stored."""
    drawn = {name: np.array(values) for name, values in stored["replicates"].items()}
    known = _task_sums(task, totals.classes, stored["of_ranking"], sums, gram, users)
    return _judged(known, stored["ece"], drawn, totals, {})


def stored_of(task: Judged) -> Stored:
    """What `judge_stored` needs."""
    return Stored(
        of_ranking={name: getattr(task.sums, name) for name in OF_RANKING},
        ece=task.figures["ece"].value,
        replicates={name: drawn.tolist() for name, drawn in task.replicates.items()},
    )


def _task_sums(
    task: str, classes: tuple[int, int], of_ranking: dict[str, float], sums: Floats, gram: Floats, users: int
) -> TaskSums:
    own = slice(TASKS.index(task) * WIDTH, (TASKS.index(task) + 1) * WIDTH)
    return TaskSums(
        *classes,
        users=users,
        wins=of_ranking["wins"],
        precision=of_ranking["precision"],
        slope=of_ranking["slope"],
        sums=sums[own],
        gram=gram[own, own],
    )


def _judged(
    sums: TaskSums, ece: float | None, drawn: dict[str, Floats], totals: Totals, summary: Arrays
) -> Judged:
    figures = figures_of(sums)
    figures["ece"] = Figure(ece, reason=figures["log_loss"].reason)
    return Judged(sums, drawn, figures, totals, summary)


def _bins(summary: Arrays) -> tuple[Floats, Floats, Floats]:
    """Rows, positives and the sum of predictions, [bins, groups]."""
    shape = (NUM_BINS, NUM_GROUPS)
    rows, positives, predicted = (
        summary[f"bin_{name}"].reshape(shape).astype(np.float64)
        for name in ("rows", "positives", "predicted")
    )
    return rows, positives, predicted / scores.UNIT


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
    high = figure.value + Z * error
    return Estimate(
        value=figure.value,
        low=max(figure.value - Z * error, 0.0),
        high=high if most is None else min(high, most),
    )


def task_metrics(task: Judged, truth: Baseline | None) -> TaskMetrics:
    """A task as metrics.json has it. truth: the true probabilities as a baseline, where they are known."""
    rows = task.sums.rows
    rate = task.sums.positives / rows if rows else None
    estimates = estimates_of(task)
    baselines = {"constant": _constant(rate)}
    if truth is not None:
        baselines["truth"] = truth
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
        baselines=baselines,
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
    rows, _, predicted = (part.sum(1) for part in _bins(summary))
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
        calibration=bins_of(*_bins(summary)),
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


def baseline_of_truth(task: str, totals: Mapping[str, Totals], summary: Arrays, found: Arrays) -> Baseline:
    """The true probabilities of a task as scores, rounded to float32 as predictions are."""
    positives, negatives = totals[f"best_{task}"].classes
    rows = positives + negatives
    if not rows:
        return _constant(None)
    varied = bool(positives and negatives)
    sums = {
        name: int(found[f"best_{task}_{name}"][0]) / scores.UNIT
        for name in ("predicted", "log_loss", "squares")
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
