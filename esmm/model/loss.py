"""What the losses of the models are made of, in log space: nothing needs clamping."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from esmm.model_config import ClassWeights

EVEN = ClassWeights()
FLOOR = 0.01  # of a propensity; smaller ones would let single clicks rule a step


@dataclass(frozen=True)
class Labels:
    """What became of B impressions, and how much each counts.

    click, conversion: float32 [B] of 0 and 1. classes: multiply the terms of positive impressions. weight:
    float32 [B], those of each impression; None: they all count 1. Means divide by the number of impressions,
    not by their weights: so a weight changes what its impressions count and leaves the others as they are.
    epsilon: see `binary_terms`. action: float32 [B] of 0 and 1, where the model has `ACTIONS`.
    """

    click: Tensor
    conversion: Tensor
    classes: ClassWeights = EVEN
    weight: Tensor | None = None
    epsilon: float = 0.0
    action: Tensor | None = None

    @property
    def both(self) -> Tensor:
        """[B]: clicked and converted."""
        return self.click * self.conversion

    def times(self, factor: Tensor) -> Tensor:
        """[B]: the impressions' weights times a factor of a model's own."""
        return factor if self.weight is None else factor * self.weight


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of p = s(a) s(b), the product of two probabilities given by their logits; s is the sigmoid.

        log (p / (1 - p)) = -log (exp(-a) (1 + exp(-b)) + exp(-b))

    A sum of positive terms, so nothing cancels and nothing needs clamping, however large the logits.
    """
    return -torch.logaddexp(F.softplus(-b) - a, -b)


def binary_terms(
    logit: Tensor, positive: Tensor, positive_weight: float = 1.0, epsilon: float = 0.0
) -> Tensor:
    """Binary cross entropy, [B]: -log s(logit) of positives and -log s(-logit) of others.

    epsilon: added to the probability that the logarithm is of, as PaddlePaddle's log_loss does; with it the
    best prediction of a rate q is q - epsilon (1 - 2 q).
    """
    toward = (1 - 2 * positive) * logit
    losses = -torch.log(torch.sigmoid(-toward) + epsilon) if epsilon else F.softplus(toward)
    if positive_weight != 1:
        losses = losses * (1 + (positive_weight - 1) * positive)
    return losses


def soft_terms(logit: Tensor, target: Tensor, epsilon: float = 0.0) -> Tensor:
    """Binary cross entropy of targets between 0 and 1, [B]. epsilon: as in `binary_terms`."""
    if not epsilon:
        return F.softplus(logit) - target * logit
    yes, no = torch.ones_like(target), torch.zeros_like(target)
    of_yes, of_no = (binary_terms(logit, label, epsilon=epsilon) for label in (yes, no))
    return target * of_yes + (1 - target) * of_no


def propensity(ctr: Tensor) -> Tensor:
    """[pCTR] of logits [B], from `FLOOR` to 1 - `FLOOR`, without gradient."""
    return torch.sigmoid(ctr.detach()).clamp(FLOOR, 1 - FLOOR)


def click_loss(ctr: Tensor, labels: Labels) -> Tensor:
    """sum BCE(click, pCTR) over all impressions, from the logit [B]."""
    losses = binary_terms(ctr, labels.click, labels.classes.click, labels.epsilon)
    return _sum(losses, labels.weight)


def both_loss(ctcvr: Tensor, labels: Labels) -> Tensor:
    """sum BCE(click * conversion, pCTCVR) over all impressions, from the logit [B]."""
    return _sum(binary_terms(ctcvr, labels.both, labels.classes.conversion, labels.epsilon), labels.weight)


def entire_space_loss(ctr: Tensor, cvr: Tensor, labels: Labels) -> Tensor:
    """sum BCE(click * conversion, pCTR pCVR) over all impressions, from two logits [B]: ESMM's equation 3."""
    return both_loss(product_logit(ctr, cvr), labels)


def action_loss(ctr: Tensor, action: Tensor, labels: Labels) -> Tensor:
    """sum BCE(click * action, pCTR pAction) over all impressions, from two logits [B]: ESM2's second loss."""
    if labels.action is None:
        raise ValueError("expected labels of actions, found none")
    losses = binary_terms(product_logit(ctr, action), labels.click * labels.action, epsilon=labels.epsilon)
    return _sum(losses, labels.weight)


def conversion_loss(cvr: Tensor, labels: Labels, times: Tensor) -> Tensor:
    """sum times BCE(conversion, pCVR), from the logit [B]. times [B]: the click where only clicks count."""
    losses = binary_terms(cvr, labels.both, labels.classes.conversion, labels.epsilon)
    return losses @ labels.times(times)


def _sum(losses: Tensor, weight: Tensor | None) -> Tensor:
    return losses.sum() if weight is None else losses @ weight
