"""Which rank reads which row groups and how large every step's batch is: arithmetic on the manifest.

All ranks compute the same answer from the same manifest, so nobody has to ask the others.
"""

from dataclasses import dataclass

from schemas.manifest import Manifest


@dataclass(frozen=True)
class RowGroup:
    """One Parquet row group of a sample set. file: name inside the folder. index: position in the file."""

    file: str
    index: int
    num_rows: int
    num_impressions: int


def row_groups(manifest: Manifest) -> list[RowGroup]:
    """All row groups of a sample set: files in name order, then by position in the file."""
    groups = []
    for entry in sorted(manifest["files"], key=lambda entry: entry["name"]):
        for index, counts in enumerate(zip(entry["rows"], entry["impressions"], strict=True)):
            groups.append(RowGroup(entry["name"], index, *counts))
    return groups


def shard(groups: list[RowGroup], rank: int, world_size: int) -> list[RowGroup]:
    """The row groups of one rank: they are dealt out one by one, so every file feeds every rank."""
    return groups[rank::world_size]


@dataclass(frozen=True)
class Schedule:
    """The steps of one epoch.

    num_impressions: of each rank. batch_size: impressions per step of one rank. A rank that has run
    out of impressions still takes part in every step, with an empty batch.
    """

    num_impressions: tuple[int, ...]
    batch_size: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(
                f"batch_size: expected at least 1 impression per step and rank, found {self.batch_size}"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on all ranks."""
        return -(-max(self.num_impressions) // self.batch_size)

    def batch_size_of(self, rank: int, step: int) -> int:
        """Impressions of one rank at a step (from 0): batch_size, then the rest, then 0."""
        left = self.num_impressions[rank] - step * self.batch_size
        return min(max(left, 0), self.batch_size)

    def global_batch_size(self, step: int) -> int:
        """Impressions of all ranks together at a step: what a mean loss divides by."""
        return sum(self.batch_size_of(rank, step) for rank in range(len(self.num_impressions)))


def make_schedule(groups: list[RowGroup], world_size: int, batch_size: int) -> Schedule:
    """The schedule of `world_size` ranks that share these row groups."""
    counts = (sum(g.num_impressions for g in shard(groups, rank, world_size)) for rank in range(world_size))
    return Schedule(tuple(counts), batch_size)
