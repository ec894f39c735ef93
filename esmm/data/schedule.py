"""Which rank reads which impressions in which order, and where a run stands: arithmetic on the manifest.

An epoch is a sequence of legs. Within a leg the number of workers and the batch size stay what they are;
a leg ends when one of them changes. At its beginning the row groups are shuffled and dealt to the ranks.
Each rank's list is cut into windows; the contexts of a window are permuted when it is read
(`loader`), and the windows one after the other are the stream that a rank's batches are cut from. So
the number of steps alone tells what has been consumed: windows that are done, one that has been begun (a
remnant), windows that nobody has touched. The next leg deals the remnants, which stay windows, and the
row groups of the others. Nothing is lost or repeated, whatever the numbers of workers.

All ranks compute the same answer from the same manifest, so nobody has to ask the others.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from schemas.manifest import Manifest


@dataclass(frozen=True)
class RowGroup:
    """One Parquet row group of a sample set. file: name inside the folder. index: position in the file."""

    file: str
    index: int
    num_rows: int
    num_impressions: int


@dataclass(frozen=True)
class Window:
    """Row groups whose contexts are permuted together, without the first `skip` impressions of the result.

    key: (leg, rank, number) for which it was made; with seed and epoch it decides the permutation.
    """

    groups: tuple[RowGroup, ...]
    key: tuple[int, int, int]
    skip: int = 0

    @property
    def num_impressions(self) -> int:
        return sum(group.num_impressions for group in self.groups) - self.skip


Item = RowGroup | Window  # what is dealt when a leg begins


@dataclass(frozen=True)
class Leg:
    """`steps` steps that `workers` workers took with `batch_size` impressions per step over all of them."""

    workers: int
    batch_size: int
    steps: int


@dataclass(frozen=True)
class Position:
    """How far an epoch has come. It holds for the same samples, seed and shuffle window only.

    left_out: row groups, by number in file order, that windows begun so far had to do without. How their
    impressions divide among their contexts is not known, so these windows must go on without them.
    `dataclasses.asdict` makes JSON of it.
    """

    epoch: int
    legs: tuple[Leg, ...] = ()
    left_out: tuple[int, ...] = ()

    @classmethod
    def start(cls, epoch: int) -> Self:
        """The beginning of an epoch."""
        return cls(epoch)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        legs = tuple(Leg(**leg) for leg in content["legs"])
        return cls(content["epoch"], legs, tuple(content.get("left_out", ())))

    def after(self, steps: int, workers: int, batch_size: int) -> "Position":
        """The position when so many more steps have been taken."""
        if not steps:
            return self
        legs = self.legs
        last = self.legs[-1] if self.legs else None
        if last and (last.workers, last.batch_size) == (workers, batch_size):
            legs = legs[:-1]
            steps = last.steps + steps
        return replace(self, legs=(*legs, Leg(workers, batch_size, steps)))


@dataclass(frozen=True)
class Schedule:
    """The steps that are left of a leg.

    windows: of each rank, in the order in which it reads them. A rank that has run out of impressions
    still takes part in every step, with an empty batch.
    """

    windows: tuple[tuple[Window, ...], ...]
    batch_size: int

    @cached_property
    def num_impressions(self) -> tuple[int, ...]:
        """Left for each rank."""
        return tuple(sum(window.num_impressions for window in rank) for rank in self.windows)

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """Impressions per step of each rank; they differ by one at most."""
        return shares(self.batch_size, len(self.windows))

    @cached_property
    def steps(self) -> int:
        """Steps left, the same on all ranks."""
        return max(-(-left // share) for left, share in zip(self.num_impressions, self.shares, strict=True))

    def batch_size_of(self, rank: int, step: int) -> int:
        """Impressions of one rank at a step (from 0): its share, then the rest, then 0."""
        left = self.num_impressions[rank] - step * self.shares[rank]
        return min(max(left, 0), self.shares[rank])

    def global_batch_size(self, step: int) -> int:
        """Impressions of all ranks together at a step: what a mean loss divides by."""
        return sum(self.batch_size_of(rank, step) for rank in range(len(self.windows)))

    def after(self, steps: int) -> "Schedule":
        """What is left after so many more steps."""
        left = (
            tuple(_advance(rank, steps * share))
            for rank, share in zip(self.windows, self.shares, strict=True)
        )
        return Schedule(tuple(left), self.batch_size)


def row_groups(manifest: Manifest) -> list[RowGroup]:
    """All row groups of a sample set: files in name order, then by position in the file."""
    groups = []
    for entry in sorted(manifest["files"], key=lambda entry: entry["name"]):
        for index, counts in enumerate(zip(entry["rows"], entry["impressions"], strict=True)):
            groups.append(RowGroup(entry["name"], index, *counts))
    return groups


def shares(batch_size: int, workers: int) -> tuple[int, ...]:
    """How many of a step's impressions each rank takes: all alike, the first ones one more."""
    if batch_size < workers:
        raise ValueError(f"batch_size: expected at least one impression per worker, found {batch_size}")
    return tuple(batch_size // workers + (rank < batch_size % workers) for rank in range(workers))


def make_schedule(
    groups: list[RowGroup],
    position: Position,
    *,
    workers: int,
    batch_size: int,
    shuffle_window: int,
    seed: int,
) -> Schedule:
    """What `workers` workers have before them at a position.

    groups: all of the samples, in file order. shuffle_window: contexts permuted together, 0 for file order.
    """
    remnants: list[Window] = []
    untouched = [group for group in groups if group.num_impressions]
    number = 0
    schedule = Schedule((), 0)
    for leg in (*position.legs, Leg(workers, batch_size, 0)):
        if (leg.workers, leg.batch_size) != (len(schedule.windows), schedule.batch_size):
            if number:
                remnants, untouched = _left_over(schedule)
            if shuffle_window:
                order = np.random.default_rng([seed, position.epoch, number]).permutation(len(untouched))
                untouched = [untouched[i] for i in order]
            dealt = _deal([*remnants, *untouched], shares(leg.batch_size, leg.workers))
            windows = (_cut(items, (number, rank), shuffle_window) for rank, items in enumerate(dealt))
            schedule = Schedule(tuple(map(tuple, windows)), leg.batch_size)
            number += 1
        schedule = schedule.after(leg.steps)
    return schedule


def window_rng(seed: int, epoch: int, window: Window) -> np.random.Generator:
    """What permutes the contexts of a window."""
    leg, rank, number = window.key
    # numpy takes [1, 2] and [1, 2, 0] for the same seed: a 1 tells this from the shuffling of row groups.
    return np.random.default_rng([seed, epoch, leg, 1, rank, number])


def _left_over(schedule: Schedule) -> tuple[list[Window], list[RowGroup]]:
    """Windows that have been begun, the smallest first; the row groups of the others, in file order."""
    windows = [window for rank in schedule.windows for window in rank]
    remnants = [window for window in windows if window.skip]
    groups = [group for window in windows if not window.skip for group in window.groups]
    return (
        sorted(remnants, key=lambda window: (window.num_impressions, window.key)),
        sorted(groups, key=lambda group: (group.file, group.index)),
    )


def _deal(items: Sequence[Item], shares: tuple[int, ...]) -> list[list[Item]]:
    """Each item goes to the rank that would be through with its own first: they end almost together."""
    dealt: list[list[Item]] = [[] for _ in shares]
    loads = [(0.0, rank, 0) for rank in range(len(shares))]
    for item in items:
        _, rank, impressions = loads[0]
        dealt[rank].append(item)
        impressions += item.num_impressions
        heapq.heapreplace(loads, (impressions / shares[rank], rank, impressions))
    return dealt


def _cut(items: list[Item], key: tuple[int, int], num_rows: int) -> Iterator[Window]:
    """Remnants as they are, then windows of neighbouring row groups that reach `num_rows` contexts."""
    window: list[RowGroup] = []
    number = 0
    rows = 0
    for item in items:
        if isinstance(item, Window):
            yield item
            continue
        window.append(item)
        rows += item.num_rows
        if rows >= num_rows:
            yield Window(tuple(window), (*key, number))
            window = []
            number = number + 1
            rows = 0
    if window:
        yield Window(tuple(window), (*key, number))


def _advance(windows: tuple[Window, ...], impressions: int) -> Iterator[Window]:
    """What is left of a rank's windows when so many impressions of its stream have been consumed."""
    for window in windows:
        if impressions >= window.num_impressions:
            impressions -= window.num_impressions
            continue
        yield Window(window.groups, window.key, window.skip + impressions)
        impressions = 0
