"""`schemas.numbers.Statistics` of the samples, tallied file by file and put together by the driver."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.numbers import Number, Statistics
from schemas.schema import Schema

Floats = npt.NDArray[np.float64]
POINTS = 1025  # of a file's distribution: the quantiles of all files together are as fine as that


@dataclass
class Tally:
    """A number in one file. points: what divides its bent values into equal parts; [] where not wanted."""

    values: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean
    min: float = float("inf")
    max: float = -float("inf")
    points: list[float] = field(default_factory=list)


class NumberTally:
    """Counts the numbers of row groups of samples."""

    def __init__(self, schema: Schema) -> None:
        self._numbers = schema.numbers
        self._tallies = {number.name: Tally() for number in schema.numbers}
        self._kept: dict[str, list[Floats]] = {n.name: [] for n in schema.numbers if n.quantiles}

    def add(self, group: pa.Table) -> None:
        """A row group in the layout of `schemas.samples`."""
        for number in self._numbers:
            values = bent(_of_impressions(group, number), number)
            there = values[~np.isnan(values)]
            one = _tally(there, len(values) - len(there))
            self._tallies[number.name] = _merged(self._tallies[number.name], one)
            if number.quantiles:
                self._kept[number.name].append(there)

    def result(self) -> dict[str, Tally]:
        for name, kept in self._kept.items():
            there = np.concatenate([np.empty(0), *kept])
            if len(there):
                points = np.quantile(there, np.linspace(0, 1, POINTS), method="inverted_cdf")
                self._tallies[name].points = points.tolist()
        return self._tallies


def statistics(number: Number, tallies: Sequence[Tally]) -> Statistics:
    """Of a number in all files, in a fixed order of these, so that a rerun gives the same digits."""
    whole = Tally()
    for tally in tallies:
        whole = _merged(whole, tally)
    return Statistics(
        values=whole.values,
        missing=whole.missing,
        mean=whole.mean,
        std=float(np.sqrt(whole.squares / whole.values)) if whole.values else 0.0,
        min=whole.min if whole.values else 0.0,
        max=whole.max if whole.values else 0.0,
        bounds=_bounds(number.quantiles, tallies) if number.quantiles else [],
    )


def bent(values: npt.NDArray[Any], number: Number) -> Floats:
    """float64: z of raw values x, see `Number`; NaN stays NaN."""
    y = values.astype(np.float64)
    if number.clip is not None:
        y = np.clip(y, *number.clip)
    return np.sign(y) * np.log1p(np.abs(y)) if number.log1p else y


def _of_impressions(group: pa.Table, number: Number) -> npt.NDArray[Any]:
    """The number of each impression."""
    column = group[number.column].combine_chunks()
    if number.per_impression:
        return column.flatten().to_numpy()
    impressions = group["click"].combine_chunks().value_lengths().to_numpy()
    return np.repeat(column.to_numpy(), impressions)


def _tally(there: Floats, missing: int) -> Tally:
    if not len(there):
        return Tally(missing=missing)
    mean = float(there.mean())
    squares = float(np.square(there - mean).sum())
    return Tally(len(there), missing, mean, squares, float(there.min()), float(there.max()))


def _merged(one: Tally, other: Tally) -> Tally:
    """Of both together: Chan, Golub and LeVeque's update, which cancels nothing."""
    values = one.values + other.values
    share = other.values / max(values, 1)
    apart = other.mean - one.mean
    return Tally(
        values=values,
        missing=one.missing + other.missing,
        mean=one.mean + apart * share,
        squares=one.squares + other.squares + apart * apart * one.values * share,
        min=min(one.min, other.min),
        max=max(one.max, other.max),
    )


def _bounds(parts: int, tallies: Sequence[Tally]) -> list[float]:
    """What divides the values of all files into so many parts: each file's points count as its values."""
    found = [tally for tally in tallies if tally.points]
    if not found:
        return []
    points = np.concatenate([tally.points for tally in found])
    weights = np.concatenate([np.full(POINTS, tally.values / POINTS) for tally in found])
    order = np.argsort(points, kind="stable")
    before = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(before, np.arange(1, parts) / parts)
    bounds: list[float] = points[order[places]].tolist()
    return [low for low, high in pairwise([*bounds, np.inf]) if low < high]
