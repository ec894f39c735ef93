"""ESM2, by post-click behaviour decomposition: Wen et al., SIGIR 2020 (arXiv 1910.07099).

After a click comes a deterministic action, such as putting into a cart (DAction), or another one (OAction):

    y1 = p(click)   y2 = p(DAction | click)   y3 = p(buy | DAction)   y4 = p(buy | OAction)

    pCTAVR = y1 y2                      the probability of a click with such an action
    pCVR   = (1 - y2) y4 + y2 y3        pCTCVR = y1 pCVR

    L = sum BCE(click, y1) + sum BCE(click * action, pCTAVR) + sum BCE(click * conversion, pCTCVR)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from esmm.model.loss import Labels, action_loss, click_loss, entire_space_loss
from esmm.model.network import Rates
from esmm.model.shared_towers import SharedTowers

LOSSES = {"ctr": 1.0, "ctavr": 1.0, "ctcvr": 1.0}


class Esm2(SharedTowers):
    """Four towers over one embedding: y1, y2, y3 and y4."""

    TOWERS = 4
    ACTIONS = True
    losses = LOSSES

    def starts(self, rates: Rates) -> Sequence[float]:
        return rates.ctr, rates.action, rates.cvr, rates.cvr

    @staticmethod
    def probabilities(*logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        click, *others = logits
        p_ctr, p_cvr = torch.sigmoid(click), torch.sigmoid(mixture_logit(*others))
        return p_ctr, p_cvr, p_ctr * p_cvr

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[3]: of clicks, of clicks with an action, and of conversions, all over all impressions."""
        click, action, *_ = logits
        cvr = mixture_logit(*logits[1:])
        losses = (
            click_loss(click, labels),
            action_loss(click, action, labels),
            entire_space_loss(click, cvr, labels),
        )
        return torch.stack(losses)


def mixture_logit(share: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The logit of p = s(share) s(a) + (1 - s(share)) s(b), in log space; s is the sigmoid."""
    first, second = F.logsigmoid(share), F.logsigmoid(-share)
    yes = torch.logaddexp(first + F.logsigmoid(a), second + F.logsigmoid(b))
    no = torch.logaddexp(first + F.logsigmoid(-a), second + F.logsigmoid(-b))
    return yes - no
