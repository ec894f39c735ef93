"""ESMM-NS: ESMM without shared embeddings, the ablation of Ma et al., SIGIR 2018, section 3.2.

Equations 1 and 3 of `esmm`, but each tower has a table of its own, so that pCVR gets nothing from the clicks
that its own loss does not tell it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.apart import Apart
from esmm.model.loss import Labels, click_loss, entire_space_loss


class EsmmNs(Apart):
    """ESMM's losses over two networks apart."""

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[2]: BCE(click, pCTR) and BCE(click * conversion, pCTCVR)."""
        ctr, cvr = logits
        return torch.stack([click_loss(ctr, labels), entire_space_loss(ctr, cvr, labels)])
