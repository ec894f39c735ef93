"""The loss against the direct formula in float64, also where the direct formula in float32 breaks."""

import itertools

import pytest
import torch
from torch import Tensor

from esmm.loss import loss_sums, probabilities

LABELS = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
MODERATE = [-6.0, -2.5, -0.1, 0.0, 1.3, 5.0]
EXTREME = [-1e4, -200.0, -90.0, -30.0, 0.0, 30.0, 90.0, 200.0, 1e4]


def _grid(logits: list[float]) -> tuple[Tensor, ...]:
    rows = [(a, b, *labels) for a, b in itertools.product(logits, logits) for labels in LABELS]
    return torch.tensor(rows, dtype=torch.float32).unbind(1)


def _gradients(a: Tensor, b: Tensor, click: Tensor, conversion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    losses = loss_sums(a, b, click, conversion)
    grad_a, grad_b = torch.autograd.grad(losses.sum(), (a, b))
    return losses.detach(), grad_a, grad_b


def _direct(a: Tensor, b: Tensor, click: Tensor, conversion: Tensor) -> Tensor:
    """The paper's formula as it stands, in float64."""
    p_ctr, p_ctcvr = torch.sigmoid(a), torch.sigmoid(a) * torch.sigmoid(b)
    both = click * conversion
    ctr = -(click * p_ctr.log() + (1 - click) * (1 - p_ctr).log())
    ctcvr = -(both * p_ctcvr.log() + (1 - both) * (1 - p_ctcvr).log())
    return torch.stack([ctr.sum(), ctcvr.sum()])


def test_loss_and_gradients_equal_the_direct_formula() -> None:
    inputs = _grid(MODERATE)
    losses, *gradients = _gradients(*inputs)
    a, b, click, conversion = (tensor.double() for tensor in inputs)
    a, b = a.requires_grad_(), b.requires_grad_()
    expected = _direct(a, b, click, conversion)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-6, atol=0)
    for found, exact in zip(gradients, torch.autograd.grad(expected.sum(), (a, b)), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=1e-7)


def test_loss_and_gradients_at_extreme_logits() -> None:
    """Exact values from s(-a), s(-b) instead of 1 - p: with s = sigmoid, d/da of the CTCVR loss is
    -s(-a) where converted and s(-a) p / (1 - p) elsewhere, 1 - p = s(-a) + s(a) s(-b).
    """
    a, b, click, conversion = inputs = _grid(EXTREME)
    losses, grad_a, grad_b = _gradients(*inputs)
    assert all(tensor.isfinite().all() for tensor in (losses, grad_a, grad_b))
    log, a, b, both = torch.nn.functional.logsigmoid, a.double(), b.double(), (click * conversion).bool()
    log_p, log_rest = log(a) + log(b), torch.logaddexp(log(-a), log(a) + log(-b))
    for found, x, base in ((grad_a, a, torch.sigmoid(a) - click), (grad_b, b, torch.zeros_like(b))):
        ctcvr = torch.where(both, -torch.sigmoid(-x), torch.exp(log(-x) + log_p - log_rest))
        torch.testing.assert_close(found.double(), base + ctcvr, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0, 5])
def test_losses_are_sums(size: int) -> None:
    zeros = torch.zeros(size)
    half, quarter = 0.6931471805599453, 0.2876820724517809  # -ln 1/2 and -ln 3/4
    losses = loss_sums(zeros, zeros, zeros, zeros)
    torch.testing.assert_close(losses, size * torch.tensor([half, quarter]))


def test_probabilities_multiply() -> None:
    p_ctr, p_cvr, p_ctcvr = probabilities(torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0]))
    torch.testing.assert_close(p_ctr, torch.tensor([0.5, 0.8807971]))
    torch.testing.assert_close(p_cvr, torch.tensor([0.5, 0.2689414]))
    torch.testing.assert_close(p_ctcvr, p_ctr * p_cvr)
