"""AITM, adaptive information transfer multi-task: Xi et al., KDD 2021 (arXiv 2105.08489), equations 2 to 8.

The tower of conversions attends to itself and to what the tower of clicks has come to:

    z = sum over u in {q, p} of w_u V u,   w = softmax of (Q u . K u) / sqrt(d),   p = relu(G h_click)

The second logit is that of a conversion of any impression, pCTCVR; pCVR is the quotient. A calibrator keeps
it from exceeding pCTR: 0.6 sum max(pCTCVR - pCTR, 0).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.loss import Labels, both_loss, click_loss
from esmm.model.network import Rates, by_division
from esmm.model.shared_towers import SharedTowers
from esmm.model.towers import DenseLayer
from esmm.model_config import ModelConfig
from esmm.workers.world import World
from schemas.schema import Schema

LOSSES = {"ctr": 1.0, "ctcvr": 1.0, "auxiliary": 0.6}


class Aitm(SharedTowers):
    """Towers of clicks and of conversions over all impressions, the second with attention."""

    losses = LOSSES
    probabilities = staticmethod(by_division)

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__(config, schema, world)
        width = config.towers[-1]
        self.transfer = DenseLayer(width, width, relu=True)
        self.query, self.key, self.value = (DenseLayer(width, width, relu=False) for _ in range(3))

    def starts(self, rates: Rates) -> Sequence[float]:
        return rates.ctr, rates.ctr * rates.cvr

    def finish(self, hidden: Sequence[Tensor]) -> Sequence[Tensor]:
        click, conversion = hidden
        sources = conversion, self.transfer(click)
        fits = [(self.query(u) * self.key(u)).sum(1) for u in sources]
        weights = (torch.stack(fits, 1) * conversion.shape[1] ** -0.5).softmax(1)
        z = sum(w.unsqueeze(1) * self.value(u) for w, u in zip(weights.unbind(1), sources, strict=True))
        return super().finish([click, z])

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[3]: BCE(click, pCTR), BCE(click * conversion, pCTCVR) and the calibrator's."""
        ctr, ctcvr = logits
        excess = (torch.sigmoid(ctcvr) - torch.sigmoid(ctr)).clamp(min=0)
        return torch.stack([click_loss(ctr, labels), both_loss(ctcvr, labels), labels.times(excess).sum()])
