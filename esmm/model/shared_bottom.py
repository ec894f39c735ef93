"""Shared bottom: Caruana, Machine Learning 1997. All tasks share the first layer, h = relu(W x + b)."""

from collections.abc import Sequence

from torch import Tensor

from esmm.model.esmm import Esmm
from esmm.model.inputs import Input
from esmm.model_config import ModelConfig


class SharedBottom(Esmm):
    """ESMM's towers and losses over one first layer."""

    @classmethod
    def num_firsts(cls, config: ModelConfig) -> int:
        return 1

    def join(self, hidden: Sequence[Tensor], x: Input) -> Sequence[Tensor]:
        (bottom,) = hidden
        return [bottom] * len(self.towers)
