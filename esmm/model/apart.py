"""A network and a table of its own for each task: what models are compared with that share nothing."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from esmm.model.network import TASKS, Network, Rates
from esmm.model.shared_towers import SharedTowers
from esmm.model_config import ModelConfig
from esmm.workers.world import World
from schemas.numbers import Statistics
from schemas.schema import Schema


class OneTower(SharedTowers):
    """One task's network."""

    TOWERS = 1


class Apart(Network):
    """A row of the embedding holds a vector for each task, which its network alone reads and changes."""

    TABLES = TASKS

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__(config, schema, world)
        own = config.towers, config.cvr_towers or config.towers
        changes = ({"towers": widths, "cvr_towers": None} for widths in own)
        configs = (config.model_copy(update=change) for change in changes)
        self.tasks = nn.ModuleList(OneTower(of_task, schema, world) for of_task in configs)

    @classmethod
    def row_width(cls, config: ModelConfig) -> int:
        return cls.TABLES * OneTower.row_width(config)

    def initialise(self) -> None:
        for task in self.networks():
            task.initialise()

    def start_at(self, rates: Rates) -> None:
        for task, rate in zip(self.networks(), self.starts(rates), strict=True):
            task.start_at(Rates(rate, rate))

    def starts(self, rates: Rates) -> tuple[float, float]:
        """What the networks predict of samples with these rates."""
        return rates.ctr, rates.cvr

    def set_statistics(self, found: Mapping[str, Statistics]) -> None:
        for task in self.networks():
            task.set_statistics(found)

    def forward(
        self,
        pooled: Tensor,
        context_index: Tensor,
        numbers: tuple[Tensor, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        logits: list[Tensor] = []
        for task, part in zip(self.tasks, pooled.chunk(TASKS, 1), strict=True):
            logits += task(part.contiguous(), context_index, numbers, dtype, generator)
        return tuple(logits)

    def networks(self) -> list[OneTower]:
        """That of each task."""
        return [task for task in self.tasks if isinstance(task, OneTower)]
