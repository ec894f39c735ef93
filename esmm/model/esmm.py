"""ESMM, the entire space multi-task model: Ma et al., SIGIR 2018 (arXiv 1804.07931).

x is what is pooled of an impression: its context's user fields and its own. Two towers read it,

    pCTR   = s(a(x))         the probability of a click                        a: the CTR tower
    pCVR   = s(b(x))         the probability that a click converts             b: the CVR tower
    pCTCVR = pCTR * pCVR     the probability of a click that converts          (equation 1)

and both are learnt from all impressions, clicked or not:

    L = sum BCE(click, pCTR) + sum BCE(click * conversion, pCTCVR)             (equation 3)

No term has pCVR alone. It is what leads from pCTR to pCTCVR, so it is learnt on the impressions that it is
asked about, not on clicked ones only. `model.conversions: clicks` has the other way to compare with,

    L = sum BCE(click, pCTR) + sum over clicks BCE(conversion, pCVR)
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from esmm.model.loss import Labels, click_loss, conversion_loss, entire_space_loss
from esmm.model.network import ENTIRE_SPACE, ON_CLICKS
from esmm.model.shared_towers import SharedTowers
from esmm.model_config import ModelConfig


class Esmm(SharedTowers):
    """Two towers over one embedding. Models that change what lies below the losses are made from it."""

    @classmethod
    def losses_of(cls, config: ModelConfig) -> Mapping[str, float]:
        return ON_CLICKS if config.conversions == "clicks" else ENTIRE_SPACE

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[2]: of clicks, and of conversions over all impressions, or over clicks."""
        ctr, cvr = logits
        if self.losses is ON_CLICKS:
            of_conversions = conversion_loss(cvr, labels, labels.click)
        else:
            of_conversions = entire_space_loss(ctr, cvr, labels)
        return torch.stack([click_loss(ctr, labels), of_conversions])
