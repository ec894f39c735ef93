"""ESMM, the entire space multi-task model: Ma et al., SIGIR 2018 (arXiv 1804.07931).

x is what is pooled of an impression: its context's user fields and its own. Two towers read it,

    pCTR   = s(a(x))         the probability of a click                        a: the CTR tower
    pCVR   = s(b(x))         the probability that a click converts             b: the CVR tower
    pCTCVR = pCTR * pCVR     the probability of a click that converts          (equation 1)

and both are learnt from all impressions, clicked or not:

    L = sum BCE(click, pCTR) + sum BCE(click * conversion, pCTCVR)             (equation 3)

No term has pCVR alone. It is what leads from pCTR to pCTCVR, so it is learnt on the impressions that it is
asked about, not on clicked ones only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.loss import Labels, click_loss, entire_space_loss
from esmm.model.network import Network


class Esmm(Network):
    """Two towers over one embedding; both losses over all impressions."""

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[2]: BCE(click, pCTR) and BCE(click * conversion, pCTCVR), each summed over B impressions."""
        ctr, cvr = logits
        return torch.stack([click_loss(ctr, labels), entire_space_loss(ctr, cvr, labels)])
