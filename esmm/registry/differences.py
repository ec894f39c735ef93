"""Differences between candidate and champion, of one day and of several days together."""

from collections.abc import Sequence
from math import isfinite, sqrt
from statistics import NormalDist
from typing import NamedTuple

from schemas.metrics import TASKS, Metrics
from schemas.promotion import DayDifference

TWO_SIDED = NormalDist().inv_cdf(0.975)  # of the intervals in metrics.json
ONE_SIDED = NormalDist().inv_cdf(0.95)
POWER = NormalDist().inv_cdf(0.8)


class Day(NamedTuple):
    """What an earlier day has found of another candidate against the same champion."""

    conversions: int
    differences: dict[str, DayDifference]


class Pooled(NamedTuple):
    """A difference of AUCs with its standard error, and how many days it is of."""

    value: float
    error: float
    days: int


def differences_of(metrics: Metrics) -> dict[str, DayDifference]:
    """Of the AUCs, candidate minus champion; none where nothing was compared."""
    if "against" not in metrics:
        return {}
    return {task: _difference(metrics, task) for task in TASKS}


def pooled(days: Sequence[DayDifference]) -> Pooled | None:
    """The mean of the days' differences d_i with standard errors e_i, weighted by the inverse variance.

        d = sum of d_i / e_i^2 / sum of 1 / e_i^2,   e = 1 / sqrt(sum of 1 / e_i^2)

    The estimate of least variance where the days are independent and have one true difference (fixed
    effects: Cochran, Biometrics 1954). Users come back, so days are less independent than that, and e is a
    little too small. days: the judged one first; None where that one is undefined. An error of 0 is that of
    two models that predict the same: on the judged day this is all there is to know, on others nothing.
    """
    found = [(day["value"], day["error"]) for day in days[:1]]
    found += [(day["value"], day["error"]) for day in days[1:] if day["error"]]
    known = [(value, error) for value, error in found if value is not None and error is not None]
    if len(known) < len(found):
        return None
    if known[0][1] == 0:
        return Pooled(known[0][0], 0.0, 1)
    smallest = min(error for _, error in known)
    weights = [(smallest / error) ** 2 for _, error in known]  # as 1 / e^2, but never too large for a float
    value = sum(weight * value for weight, (value, _) in zip(weights, known, strict=True)) / sum(weights)
    return Pooled(value, smallest / sqrt(sum(weights)), len(known))


def bounds(value: float, error: float) -> tuple[float, float]:
    """Lower and upper bound, each of a one-sided 95 % interval."""
    return value - ONE_SIDED * error, value + ONE_SIDED * error


def smallest_difference(error: float) -> float:
    """What can be shown with a chance of 80 % by a two-sided 95 % interval, as in metrics.json."""
    return (TWO_SIDED + POWER) * error


def _difference(metrics: Metrics, task: str) -> DayDifference:
    one = metrics["against"][task]["auc"]  # type: ignore[literal-required]
    value, low, high = (finite(one[key]) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return DayDifference(value=None, error=None, reason=one.get("reason", "undefined"))
    return DayDifference(value=value, error=(high - low) / (2 * TWO_SIDED))


def finite(value: float | None) -> float | None:
    """The number, or None where there is none: JSON's null and NaN."""
    return value if value is not None and isfinite(value) else None
