"""ESCM2-DR, doubly robust: Wang et al., SIGIR 2022 (arXiv 2204.05125), equations 11 to 13.

A third tower guesses the error e of pCVR, which is known for clicks only, and the clicks mend the guess e':

    L_cvr = sum e' + click / [pCTR] (e - e'),   e = BCE(conversion, pCVR)
    L_imputation = sum click / [pCTR] (e - e')^2

    L = L_ctr + 0.1 L_cvr + L_ctcvr + 0.1 L_imputation
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from esmm.model.loss import Labels, binary_terms, click_loss, entire_space_loss, propensity
from esmm.model.network import TASKS
from esmm.model.shared_towers import SharedTowers

LOSSES = {"ctr": 1.0, "ctcvr": 1.0, "cvr": 0.1, "auxiliary": 0.1}


class Escm2Dr(SharedTowers):
    """ESMM with a doubly robust loss of pCVR."""

    TOWERS = TASKS + 1
    losses = LOSSES

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[4]: L_ctr, L_ctcvr, L_cvr and L_imputation."""
        ctr, cvr, third = logits
        guess, chance = F.softplus(third), propensity(ctr)
        weight = labels.click / chance
        error = binary_terms(cvr, labels.both, labels.classes.conversion, labels.epsilon)
        robust = labels.times(guess + weight * (error - guess)).sum()
        imputation = labels.times(weight * self.trust(chance) * (error - guess).square()).sum()
        own = click_loss(ctr, labels), entire_space_loss(ctr, cvr, labels)
        return torch.stack([*own, robust, imputation])

    def trust(self, chance: Tensor) -> Tensor | float:
        """How much a click's guess counts, beside the inverse of its propensity, [B]."""
        return 1.0
