"""PLE, progressive layered extraction: Tang et al., RecSys 2020, equations 1 to 8.

Each task has experts of its own and all share some. In a level, customised gate control (CGC), task k mixes
its own experts and the shared ones, and the shared group mixes all,

    h_k = g_k(h_k) . [own experts of k; shared],   h_s = g_s(h_s) . [all experts]

and the next level's experts and gates read what the level before has mixed; those of the first read x.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from esmm.model.esmm import Esmm
from esmm.model.inputs import Input
from esmm.model.mixture import Gates, mixed
from esmm.model.network import TASKS
from esmm.model.towers import DenseLayer
from esmm.model_config import ModelConfig
from esmm.workers.world import World
from schemas.schema import Schema

EXPERTS, LEVELS = 2, 1  # experts: of each task, and of the shared group
GROUPS = TASKS + 1  # the shared group is the last


class Ple(Esmm):
    """ESMM's towers and losses over levels of experts."""

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__(config, schema, world)
        experts, levels = self.firsts // GROUPS, config.levels or LEVELS
        # The last level needs no mixture of the shared group.
        self.gates = Gates(self.sizes, TASKS, 2 * experts)
        self.shared_gate = Gates(self.sizes, 1, GROUPS * experts) if levels > 1 else None
        self.later = nn.ModuleList(
            Level(config.towers[0], experts, last=level == levels) for level in range(2, levels + 1)
        )

    @classmethod
    def num_firsts(cls, config: ModelConfig) -> int:
        return GROUPS * (config.experts or EXPERTS)

    def join(self, hidden: Sequence[Tensor], x: Input) -> Sequence[Tensor]:
        weights = [*self.gates(x), *(self.shared_gate(x) if self.shared_gate else [])]
        states = extracted(hidden, weights)
        for level in self.later:
            states = cast(Level, level)(states)
        return states


class Level(nn.Module):
    """States of the groups [B, H], the shared one last -> those of the next level, without it after the last.

    Experts and gates of a group read its state.
    """

    def __init__(self, width: int, experts: int, last: bool) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            DenseLayer(width, width, relu=True) for _ in range(GROUPS) for _ in range(experts)
        )
        choices = [2 * experts] * TASKS + ([] if last else [GROUPS * experts])
        self.gates = nn.ModuleList(DenseLayer(width, number, relu=False) for number in choices)

    def forward(self, states: Sequence[Tensor]) -> Sequence[Tensor]:
        each = len(self.experts) // GROUPS
        outputs = [expert(states[place // each]) for place, expert in enumerate(self.experts)]
        weights = [gate(state).softmax(1) for gate, state in zip(self.gates, states, strict=False)]
        return extracted(outputs, weights)


def extracted(experts: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Each group's mixture: tasks mix their own and the shared experts, the shared group all of them."""
    each = len(experts) // GROUPS
    shared = experts[TASKS * each :]
    choices = [[*experts[task * each : (task + 1) * each], *shared] for task in range(TASKS)]
    return [mixed(some, gate) for some, gate in zip([*choices, experts], weights, strict=False)]
