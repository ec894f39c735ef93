"""DBMTL, deep Bayesian multi-target learning: Wang et al., 2019 (arXiv 1902.09154), as EasyRec has it.

Over a shared bottom, a later target also reads what an earlier one has come to:

    h_k = tower_k(bottom(x)),   logit_ctr = v . h_ctr,   logit_cvr = w . relu(R [h_cvr; h_ctr] + c)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.shared_bottom import SharedBottom
from esmm.model.towers import DenseLayer
from esmm.model_config import ModelConfig
from esmm.workers.world import World
from schemas.schema import Schema


class Dbmtl(SharedBottom):
    """A shared bottom whose CVR tower ends in a layer over both towers."""

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__(config, schema, world)
        width = config.towers[-1]
        self.relation = DenseLayer(2 * width, width, relu=True)

    def finish(self, hidden: Sequence[Tensor]) -> Sequence[Tensor]:
        ctr, cvr = hidden
        return super().finish([ctr, self.relation(torch.cat([cvr, ctr], 1))])
