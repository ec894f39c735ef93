"""Slices: a task's AUC and calibration on some of the impressions, with groups of users as clusters."""

from math import sqrt

import numpy as np
import numpy.typing as npt

from jobs.evaluation import scores
from jobs.evaluation.content import interval
from jobs.evaluation.cuts import Cut
from jobs.evaluation.judging import Judged
from jobs.evaluation.users import NUM_GROUPS
from schemas.metrics import TASKS, Estimate, Slice, SliceTask, Slicing

Floats = npt.NDArray[np.float64]

FEW_POSITIVES = 50  # of CTR or CTCVR: with fewer a slice's figures say little


def slicings_of(cuts: list[Cut], judged: dict[str, Judged]) -> list[Slicing]:
    """Every cut with its slices that have impressions."""
    return [_slicing(number, cut, judged) for number, cut in enumerate(cuts, 1)]


def _slicing(number: int, cut: Cut, judged: dict[str, Judged]) -> Slicing:
    slices = []
    for code, label in enumerate(cut.labels):
        tasks = {name: _slice_task(judged[name], number, code) for name in TASKS}
        if tasks["ctr"]["rows"]:
            few = min(tasks[name]["positives"] for name in ("ctr", "ctcvr")) < FEW_POSITIVES
            slices.append(
                Slice(label=label, small=few, ctr=tasks["ctr"], cvr=tasks["cvr"], ctcvr=tasks["ctcvr"])
            )
    return Slicing(name=cut.name, slices=slices)


def _slice_task(task: Judged, number: int, code: int) -> SliceTask:
    positives, negatives = task.totals.counts[number][code].sum(axis=0).tolist()
    if not positives + negatives:
        nothing = _undefined("no impressions")
        return SliceTask(rows=0, positives=0, auc=nothing, calibration_ratio=nothing)
    sums = _sums(task, number, code)
    return SliceTask(
        rows=positives + negatives,
        positives=positives,
        auc=_auc(task, number, code, (positives, negatives), sums),
        calibration_ratio=_ratio(sums),
    )


def _sums(task: Judged, number: int, code: int) -> dict[str, Floats]:
    """[groups] per name: of the impressions of one slice."""
    names = ("rows", "positives", "predicted", "below", "above")
    found = (task.summary[f"slice_{number}_{name}"].reshape(-1, NUM_GROUPS)[code] for name in names)
    return {name: values.astype(np.float64) for name, values in zip(names, found, strict=True)}


def _undefined(reason: str) -> Estimate:
    return Estimate(value=None, low=None, high=None, reason=reason)


def _auc(task: Judged, number: int, code: int, classes: tuple[int, int], sums: dict[str, Floats]) -> Estimate:
    positives, negatives = classes
    if not positives or not negatives:
        return _undefined(f"no {'positives' if negatives else 'negatives'}")
    value = float(task.summary[f"slice_{number}_wins"][code]) / (2 * positives * negatives)
    below = sums["below"] / (2 * negatives) - value * sums["positives"]
    above = sums["above"] / (2 * positives) - value * (sums["rows"] - sums["positives"])
    return _estimate(value, below / positives + above / negatives, sums["rows"], 1.0)


def _ratio(sums: dict[str, Floats]) -> Estimate:
    positives = sums["positives"].sum()
    if not positives:
        return _undefined("no positives")
    predicted = sums["predicted"] / scores.UNIT
    value = float(predicted.sum() / positives)
    return _estimate(value, (predicted - value * sums["positives"]) / positives, sums["rows"], None)


def _estimate(value: float, influences: Floats, rows: Floats, most: float | None) -> Estimate:
    clusters = np.count_nonzero(rows)
    if clusters < 2:
        return Estimate(value=value, low=None, high=None, reason="one group of users alone: no interval")
    return interval(value, sqrt(float((influences**2).sum()) * clusters / (clusters - 1)), most)
