"""BASE: a CVR network trained on clicked impressions, and a CTR network apart (ESMM paper, section 3.2).

    L_cvr = sum over clicks BCE(conversion, pCVR)

Training has clicks only, and predictions are asked for all impressions: sample selection bias. The paper's
other ways without the entire space (`aman`, `oversampling`, `unbias`) only change what each impression counts
in L_cvr. The CTR network is the same in all of them, to the bit, so that their pCTCVR differ by pCVR alone,
as in the paper's Table 2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.apart import Apart
from esmm.model.loss import Labels, click_loss, conversion_loss
from esmm.model.network import ON_CLICKS


class Base(Apart):
    """Two networks apart, each with its own loss."""

    losses = ON_CLICKS

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[2]: BCE(click, pCTR) over impressions and BCE(conversion, pCVR) over what `counts` says."""
        ctr, cvr = logits
        times = self.counts(ctr.detach(), labels)
        return torch.stack([click_loss(ctr, labels), conversion_loss(cvr, labels, times)])

    def counts(self, ctr: Tensor, labels: Labels) -> Tensor:
        """[B]: how often each impression counts in L_cvr. ctr: logits [B], without gradient."""
        return labels.click
