"""Two evaluations of the same impressions: differences of all figures, paired by user."""

from math import log, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.evaluation.content import Z
from jobs.evaluation.figures import Figure, variance
from jobs.evaluation.gram import WIDTH
from jobs.evaluation.judging import Judged
from schemas.metrics import COMPARED, TASKS, Against, Difference, Verdict

Floats = npt.NDArray[np.float64]

POWER = 0.8416212335729143  # of a chance of 80 %, in standard errors


class Pair(NamedTuple):
    """A task of both evaluations. gram [2 x WIDTH, same]: of ours and theirs beside each other."""

    ours: Judged
    theirs: Judged
    gram: Floats


def pair_of(task: str, ours: Judged, theirs: Judged, gram: Floats) -> Pair:
    """gram [2 x tasks x WIDTH, same]: all tasks of ours, then all of theirs."""
    begin = TASKS.index(task) * WIDTH
    places = np.concatenate(
        [np.arange(begin, begin + WIDTH), np.arange(begin, begin + WIDTH) + len(TASKS) * WIDTH]
    )
    return Pair(ours, theirs, gram[np.ix_(places, places)])


def against_of(run: str, pairs: dict[str, Pair]) -> Against:
    """Every figure of every task, ours minus theirs."""
    found = {task: {name: difference_of(name, pair) for name in COMPARED} for task, pair in pairs.items()}
    return Against(run=run, ctr=found["ctr"], cvr=found["cvr"], ctcvr=found["ctcvr"])


def difference_of(name: str, pair: Pair) -> Difference:
    """Of one figure; undefined where either side's is."""
    ours, theirs = pair.ours.figures[name], pair.theirs.figures[name]
    if ours.value is None or theirs.value is None:
        reason = ours.reason or theirs.reason or "undefined"
        return Difference(value=None, low=None, high=None, smallest=None, verdict=None, reason=reason)
    value = ours.value - theirs.value
    error = _error(name, pair, ours, theirs)
    if error is None:
        reason = "one user alone: there is no interval"
        return Difference(value=value, low=None, high=None, smallest=None, verdict=None, reason=reason)
    return Difference(
        value=value,
        low=value - Z * error,
        high=value + Z * error,
        smallest=(Z + POWER) * error,
        verdict=_verdict(name, pair, value, error),
    )


def _error(name: str, pair: Pair, ours: Figure, theirs: Figure) -> float | None:
    if name in pair.ours.replicates:
        apart = pair.ours.replicates[name] - pair.theirs.replicates[name]
        return float(np.std(apart, ddof=1)) if pair.ours.sums.users > 1 else None
    return _paired_error(pair, ours.weights, theirs.weights)


def _paired_error(pair: Pair, ours: Floats | None, theirs: Floats | None) -> float | None:
    assert ours is not None and theirs is not None, "a figure without replicates has weights"
    found = variance(np.concatenate([ours, -theirs]), pair.gram, pair.ours.sums.users)
    return None if found is None else sqrt(found)


def _verdict(name: str, pair: Pair, value: float, error: float) -> Verdict | None:
    direction = COMPARED[name]
    if direction == "nearer to 1":
        return _verdict_of_ratio(pair)
    gain = value if direction == "higher" else -value
    return _judge(gain, error)


def _verdict_of_ratio(pair: Pair) -> Verdict | None:
    """By the distance from 1, as a factor: |ln ratio|."""
    ours, theirs = (side.figures["calibration_ratio"] for side in (pair.ours, pair.theirs))
    assert ours.value is not None and theirs.value is not None
    if ours.value <= 0 or theirs.value <= 0:
        return None
    scaled = [
        figure.weights * np.sign(log(figure.value)) / figure.value
        for figure in (ours, theirs)
        if figure.weights is not None and figure.value is not None
    ]
    error = _paired_error(pair, *scaled)
    return None if error is None else _judge(abs(log(theirs.value)) - abs(log(ours.value)), error)


def _judge(gain: float, error: float) -> Verdict:
    if abs(gain) <= Z * error:
        return "not distinguishable"
    return "better" if gain > 0 else "worse"
