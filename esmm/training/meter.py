"""Losses and speed since the last line of the log, over all workers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from esmm.data.loader import Loader
from esmm.training.progress import LogWindow
from esmm.workers.world import World


class Report(NamedTuple):
    """What the steps since the report before have been.

    Mean losses by name, impressions/s of all workers, share of the time that the workers waited for data.
    skipped_impressions: of all workers, that lay in row groups that could not be read. seconds: that the
    steps took.
    """

    losses: dict[str, float]
    impressions_per_second: float
    loader_share: float
    skipped_impressions: int
    seconds: float


class Meter:
    """The losses stay on the device between reports: reading them would make a GPU wait at every step.

    window: what a checkpoint says of the steps before, where one was loaded. losses: their names.
    """

    def __init__(self, world: World, loader: Loader, window: LogWindow, losses: Sequence[str]) -> None:
        self.world = world
        self.names = losses
        self.loader = loader
        self._begin(window)

    def _begin(self, window: LogWindow) -> None:
        self.steps = window.steps
        self.impressions = window.impressions if self.world.is_rank_zero else 0
        self.planned = window.impressions + window.skipped  # of all ranks
        self.losses = self._mine(window.losses)
        self.started = time.perf_counter() - window.seconds
        self.waited = self.loader.wait_seconds - (window.waited if self.world.is_rank_zero else 0.0)

    def _mine(self, losses: list[list[float]]) -> Tensor:
        """This rank's part of the stored sums; with another number of ranks rank 0 takes them all."""
        sums = torch.zeros(len(self.names), dtype=torch.float64, device=self.world.device)
        stored = torch.tensor(losses, dtype=torch.float64).view(-1, len(self.names))
        if len(losses) == self.world.size:
            sums += stored[self.world.rank].to(sums.device)
        elif self.world.is_rank_zero:
            sums += stored.sum(0).to(sums.device)
        return sums

    def add(self, losses: Tensor, impressions: int, planned: int) -> None:
        """One step: this rank's summed losses and its impressions; planned: those of all ranks."""
        self.losses += losses
        self.steps += 1
        self.impressions += impressions
        self.planned += planned

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside is no part of a step."""
        before = time.perf_counter()
        yield
        self.started += time.perf_counter() - before

    def window(self) -> LogWindow:
        """The steps since the last report, for a checkpoint: whole on rank 0. All ranks call it together."""
        mine = self._totals().unsqueeze(0)
        rows = self.world.gather(mine, "window")
        if rows is None:
            return LogWindow()
        seconds = time.perf_counter() - self.started
        impressions, waited = rows[:, -2:].sum(0).tolist()
        skipped = self.planned - int(impressions)
        return LogWindow(self.steps, int(impressions), rows[:, :-2].tolist(), seconds, waited, skipped)

    def report(self) -> Report:
        """The steps since the last one; then it begins anew. All ranks call it together."""
        totals = self._totals()
        self.world.all_reduce_([totals], "report")
        *losses, impressions, waited_all = totals.tolist()
        seconds = time.perf_counter() - self.started
        present = max(impressions, 1.0)  # all may be missing where broken row groups are skipped
        result = Report(
            losses={name: total / present for name, total in zip(self.names, losses, strict=True)},
            impressions_per_second=impressions / seconds,
            loader_share=waited_all / self.world.size / seconds,
            skipped_impressions=self.planned - int(impressions),
            seconds=seconds,
        )
        self._begin(LogWindow())
        return result

    def _totals(self) -> Tensor:
        """This rank's losses, then its impressions and seconds of waiting."""
        others = [self.impressions, self.loader.wait_seconds - self.waited]
        return torch.cat([self.losses.cpu(), torch.tensor(others, dtype=torch.float64)])
