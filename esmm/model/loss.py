"""ESMM's two losses over the whole space of impressions, in log space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from esmm.config import ClassWeights


def loss_sums(
    ctr_logit: Tensor,
    cvr_logit: Tensor,
    click: Tensor,
    conversion: Tensor,
    weights: ClassWeights | None = None,
) -> Tensor:
    """[2]: sums over B impressions of BCE(click, pCTR) and BCE(click * conversion, pCTR * pCVR).

    All inputs float32 [B]. ESMM, Ma et al., SIGIR 2018, equation 3. The weights multiply the terms of
    positive impressions. Means divide by the number of impressions, not by their weights: so a weight
    changes what a positive counts and leaves the others as they are.

    With s = sigmoid and p = s(a) s(b), the logit of p is

        log (p / (1 - p)) = -log (exp(-a) (1 + exp(-b)) + exp(-b))

    A sum of positive terms, so nothing cancels and nothing needs clamping, however large the logits.
    """
    weights = weights or ClassWeights()
    ctcvr_logit = -torch.logaddexp(F.softplus(-cvr_logit) - ctr_logit, -cvr_logit)
    return torch.stack(
        [
            _binary_loss(ctr_logit, click, weights.click),
            _binary_loss(ctcvr_logit, click * conversion, weights.conversion),
        ]
    )


def _binary_loss(logit: Tensor, positive: Tensor, weight: float) -> Tensor:
    """Sum of -weight * log s(logit) over positives and of -log s(-logit) over the others."""
    losses = F.softplus((1 - 2 * positive) * logit)
    return (losses if weight == 1 else losses * (1 + (weight - 1) * positive)).sum()


def probabilities(ctr_logit: Tensor, cvr_logit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p_ctr, p_cvr and p_ctcvr = p_ctr * p_cvr, each [B]."""
    p_ctr, p_cvr = torch.sigmoid(ctr_logit), torch.sigmoid(cvr_logit)
    return p_ctr, p_cvr, p_ctr * p_cvr
