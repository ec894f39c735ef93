"""DCMT, direct counterfactual multi-task: Zhu et al., ICDE 2023 (arXiv 2302.06141), equations 8 to 12.

A third tower predicts the counterfactual r* = p(no conversion), which the impressions without a click teach:

    L_cvr = sum click / [pCTR] BCE(conversion, pCVR) + (1 - click) / (1 - [pCTR]) BCE(1 - conversion, r*)
    L_constraint = sum abs(pCVR + r* - 1)

    L = L_ctr + L_cvr + L_ctcvr + 0.001 L_constraint
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.loss import Labels, binary_terms, click_loss, conversion_loss, entire_space_loss, propensity
from esmm.model.network import TASKS, Rates
from esmm.model.shared_towers import SharedTowers

LOSSES = {"ctr": 1.0, "ctcvr": 1.0, "cvr": 1.0, "auxiliary": 0.001}


class Dcmt(SharedTowers):
    """ESMM with a counterfactual tower."""

    TOWERS = TASKS + 1
    losses = LOSSES

    def starts(self, rates: Rates) -> Sequence[float]:
        return rates.ctr, rates.cvr, 1 - rates.cvr

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[4]: L_ctr, L_ctcvr, L_cvr and L_constraint."""
        ctr, cvr, counterfactual = logits
        chance = propensity(ctr)
        of_clicks = conversion_loss(cvr, labels, labels.click / chance)
        unclicked = labels.times((1 - labels.click) / (1 - chance))
        of_others = binary_terms(counterfactual, 1 - labels.both, epsilon=labels.epsilon) @ unclicked
        apart = (torch.sigmoid(cvr) + torch.sigmoid(counterfactual) - 1).abs()
        own = click_loss(ctr, labels), entire_space_loss(ctr, cvr, labels)
        return torch.stack([*own, of_clicks + of_others, labels.times(apart).sum()])
