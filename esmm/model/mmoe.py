"""MMoE, multi-gate mixture of experts: Ma et al., KDD 2018, equations 5 to 7.

    f_k(x) = h_k(sum_i g_k(x)_i e_i(x)),   g_k(x) = softmax(W_k x)

Experts e_i are first layers that all tasks share, h_k is the tower of task k.
"""

from collections.abc import Sequence

from torch import Tensor

from esmm.model.esmm import Esmm
from esmm.model.inputs import Input
from esmm.model.mixture import Gates, mixed
from esmm.model_config import ModelConfig
from esmm.workers.world import World
from schemas.schema import Schema

EXPERTS = 4


class Mmoe(Esmm):
    """ESMM's towers and losses over a mixture of experts for each task."""

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__(config, schema, world)
        self.gates = Gates(self.sizes, self.TOWERS, self.firsts)

    @classmethod
    def num_firsts(cls, config: ModelConfig) -> int:
        return config.experts or EXPERTS

    def join(self, hidden: Sequence[Tensor], x: Input) -> Sequence[Tensor]:
        return [mixed(hidden, weights) for weights in self.gates(x)]
