"""ESCM2-IPS: Wang et al., SIGIR 2022 (arXiv 2204.05125), equations 10 and 12.

ESMM's losses, and pCVR's own over clicks, each of which counts by the inverse of its chance, a constant here:

    L = L_ctr + 0.1 L_cvr + L_ctcvr,   L_cvr = sum click / [pCTR] BCE(conversion, pCVR)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.loss import Labels, click_loss, conversion_loss, entire_space_loss, propensity
from esmm.model.shared_towers import SharedTowers

LOSSES = {"ctr": 1.0, "ctcvr": 1.0, "cvr": 0.1}


class Escm2Ips(SharedTowers):
    """ESMM with an inverse propensity loss of pCVR."""

    losses = LOSSES

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[3]: L_ctr, L_ctcvr and L_cvr."""
        ctr, cvr = logits
        of_clicks = conversion_loss(cvr, labels, labels.click / propensity(ctr))
        return torch.stack([click_loss(ctr, labels), entire_space_loss(ctr, cvr, labels), of_clicks])
