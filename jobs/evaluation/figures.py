"""The figures of a task and how much each user moves them. Pure numbers; formulas: docs/metrics.md.

A figure's `weights` say how a user moves it: g_u = weights . s_u, with s_u the user's sums (`gram.PARTS`).
Its variance is I / (I - 1) x sum over the I users of g_u^2 (Obuchowski 1997 for the AUC, the delta method
with clusters for means and ratios).
"""

from math import log, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.evaluation.gram import PARTS, WIDTH

Floats = npt.NDArray[np.float64]


class TaskSums(NamedTuple):
    """What is known of a task after Spark is done.

    wins: twice the pairs in the right order plus the tied ones; precision: sum over positives of the
    precision at their score; slope: of the scaled log loss, by the scale.
    """

    positives: int
    negatives: int
    users: int
    wins: float
    precision: float
    slope: float
    sums: Floats  # [WIDTH] over all users
    gram: Floats  # [WIDTH, WIDTH]

    @property
    def rows(self) -> int:
        """Impressions that are judged."""
        return self.positives + self.negatives

    def sum_of(self, part: str) -> float:
        """Of one of `gram.PARTS`, over all users."""
        return float(self.sums[PARTS.index(part)])


class Figure(NamedTuple):
    """value: None where there is none, and why. weights [WIDTH]: None where users' sums do not say."""

    value: float | None
    weights: Floats | None = None
    reason: str | None = None


def variance(weights: Floats, gram: Floats, users: int) -> float | None:
    """Of a figure; None where there are not two users. Rounding may leave a little less than 0."""
    if users < 2:
        return None
    return max(float(weights @ gram @ weights), 0.0) * users / (users - 1)


def _weights(**parts: float) -> Floats:
    weights = np.zeros(WIDTH)
    for name, value in parts.items():
        weights[PARTS.index(name)] = value
    return weights


def entropy(rate: float) -> float:
    """-q ln q - (1 - q) ln(1 - q): the log loss of a constant rate q, in (0, 1)."""
    return -rate * log(rate) - (1 - rate) * log(1 - rate)


def figures_of(task: TaskSums) -> dict[str, Figure]:
    """All figures of a task but ECE, which needs bins."""
    if task.rows == 0:
        nothing = Figure(None, reason="no impressions to judge")
        return dict.fromkeys((*_MEANS, *_OF_CLASSES, *_WITHIN), nothing)
    means = {name: _mean(task, part) for name, part in _MEANS.items()}
    if not (task.positives and task.negatives):
        missing = "positives" if task.negatives else "negatives"
        nothing = Figure(None, reason=f"no {missing} among {task.rows:,} impressions")
        of_classes = dict.fromkeys(_OF_CLASSES, nothing)
        if task.positives:
            of_classes["calibration_ratio"] = _calibration_ratio(task)
        return means | of_classes | _gaucs(task)
    of_classes = {
        "auc": _auc(task),
        "pr_auc": Figure(task.precision / task.positives),
        "normalised_entropy": _normalised(task, task.sum_of("log_loss"), _weights(log_loss=1 / task.rows)),
        "scaled_normalised_entropy": _scaled(task),
        "calibration_ratio": _calibration_ratio(task),
    }
    return means | of_classes | _gaucs(task)


_MEANS = {"log_loss": "log_loss", "brier": "squares"}
_OF_CLASSES = ("auc", "pr_auc", "normalised_entropy", "scaled_normalised_entropy", "calibration_ratio")
_WITHIN = {"gauc": ("both_rows_auc", "both_rows"), "gauc_equal": ("both_auc", "both")}


def _mean(task: TaskSums, part: str) -> Figure:
    value = task.sum_of(part) / task.rows
    return Figure(value, _weights(**{part: 1 / task.rows, "rows": -value / task.rows}))


def _auc(task: TaskSums) -> Figure:
    """Obuchowski, Biometrics 53 (1997): (V10 - AUC) / positives, (V01 - AUC) / negatives."""
    value = task.wins / (2 * task.positives * task.negatives)
    of_negatives = value / task.negatives
    return Figure(
        value,
        _weights(
            below=1 / task.positives,
            above=1 / task.negatives,
            positives=of_negatives - value / task.positives,
            rows=-of_negatives,
        ),
    )


def _calibration_ratio(task: TaskSums) -> Figure:
    value = task.sum_of("predicted") / task.positives
    return Figure(value, _weights(predicted=1 / task.positives, positives=-value / task.positives))


def _normalised(task: TaskSums, loss: float, of_mean: Floats) -> Figure:
    """A summed loss over the entropy of the mean label; of_mean: what weighs in the mean loss."""
    rate = task.positives / task.rows
    whole = entropy(rate)
    mean = loss / task.rows
    by_rate = -mean * log((1 - rate) / rate) / whole**2
    of_loss = (of_mean - _weights(rows=mean / task.rows)) / whole
    return Figure(mean / whole, of_loss + by_rate * _weights(positives=1 / task.rows, rows=-rate / task.rows))


def _scaled(task: TaskSums) -> Figure:
    """Normalised entropy of p x scale, the scale being sum of labels / sum of p, which users move too."""
    predicted = task.sum_of("predicted")
    if predicted == 0:
        return Figure(None, reason="all predictions are 0: there is no scale")
    scale = task.positives / predicted
    by_scale = (task.slope - task.positives / scale) / task.rows
    of_scale = _weights(positives=1 / predicted, predicted=-scale / predicted)
    of_mean = _weights(scaled_loss=1 / task.rows) + by_scale * of_scale
    return _normalised(task, task.sum_of("scaled_loss"), of_mean)


def _gaucs(task: TaskSums) -> dict[str, Figure]:
    found = {}
    for name, (part, weight) in _WITHIN.items():
        whole = task.sum_of(weight)
        if whole == 0:
            found[name] = Figure(None, reason="no user has both classes")
            continue
        value = task.sum_of(part) / whole
        found[name] = Figure(value, _weights(**{part: 1 / whole, weight: -value / whole}))
    return found


def standard_error(figure: Figure, task: TaskSums) -> float | None:
    """Of a figure whose weights are known, else None."""
    if figure.weights is None:
        return None
    found = variance(figure.weights, task.gram, task.users)
    return None if found is None else sqrt(found)
