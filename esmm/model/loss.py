"""What the losses of the models are made of, in log space: nothing needs clamping."""

import torch
import torch.nn.functional as F
from torch import Tensor


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of p = s(a) s(b), the product of two probabilities given by their logits; s is the sigmoid.

        log (p / (1 - p)) = -log (exp(-a) (1 + exp(-b)) + exp(-b))

    A sum of positive terms, so nothing cancels and nothing needs clamping, however large the logits.
    """
    return -torch.logaddexp(F.softplus(-b) - a, -b)


def binary_loss(
    logit: Tensor, positive: Tensor, positive_weight: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Binary cross entropy: the sum of -log s(logit) over positives and -log s(-logit) over others.

    positive_weight: of all positives; weight [B]: of each term beside.
    """
    losses = F.softplus((1 - 2 * positive) * logit)
    if positive_weight != 1:
        losses = losses * (1 + (positive_weight - 1) * positive)
    return losses.sum() if weight is None else losses @ weight
