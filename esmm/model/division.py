"""DIVISION: a CTR and a CTCVR network apart, and pCVR as their quotient (ESMM paper, section 3.2).

    pCVR = pCTCVR / pCTR,   L = sum BCE(click, pCTR) + sum BCE(click * conversion, pCTCVR)

pCTR is small, so the quotient is unsteady, and may exceed 1, where it is bounded.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.apart import Apart
from esmm.model.loss import Labels, both_loss, click_loss
from esmm.model.network import Rates, by_division


class Division(Apart):
    """The second network is that of CTCVR."""

    probabilities = staticmethod(by_division)

    def starts(self, rates: Rates) -> tuple[float, float]:
        return rates.ctr, rates.ctr * rates.cvr

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[2]: BCE(click, pCTR) and BCE(click * conversion, pCTCVR)."""
        ctr, ctcvr = logits
        return torch.stack([click_loss(ctr, labels), both_loss(ctcvr, labels)])
