"""The loss against the direct formula in float64, also where the direct formula in float32 breaks."""

import itertools

import mpmath
import pytest
import torch
from torch import Tensor

from esmm.model.loss import Labels, binary_terms, click_loss, entire_space_loss
from esmm.model.network import Network
from esmm.model_config import ClassWeights

LABELS = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
MODERATE = [-6.0, -2.5, -0.1, 0.0, 1.3, 5.0]
EXTREME = [-1e4, -200.0, -90.0, -30.0, 0.0, 30.0, 90.0, 200.0, 1e4]
EQUAL, UNEQUAL = ClassWeights(), ClassWeights(click=3.0, conversion=0.25)
weighted = pytest.mark.parametrize("weights", [EQUAL, UNEQUAL])


def _grid(logits: list[float]) -> tuple[Tensor, ...]:
    rows = [(a, b, *labels) for a, b in itertools.product(logits, logits) for labels in LABELS]
    return torch.tensor(rows, dtype=torch.float32).unbind(1)


def _losses(
    a: Tensor,
    b: Tensor,
    click: Tensor,
    conversion: Tensor,
    weights: ClassWeights = EQUAL,
    weight: Tensor | None = None,
) -> Tensor:
    labels = Labels(click, conversion, weights, weight)
    return torch.stack([click_loss(a, labels), entire_space_loss(a, b, labels)])


def _gradients(
    a: Tensor, b: Tensor, click: Tensor, conversion: Tensor, weights: ClassWeights
) -> tuple[Tensor, Tensor, Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    losses = _losses(a, b, click, conversion, weights)
    grad_a, grad_b = torch.autograd.grad(losses.sum(), (a, b))
    return losses.detach(), grad_a, grad_b


def _direct(a: Tensor, b: Tensor, click: Tensor, conversion: Tensor, weights: ClassWeights) -> Tensor:
    """The paper's formula as it stands, in float64."""
    p_ctr, p_ctcvr = torch.sigmoid(a), torch.sigmoid(a) * torch.sigmoid(b)
    both = click * conversion
    ctr = -(weights.click * click * p_ctr.log() + (1 - click) * (1 - p_ctr).log())
    ctcvr = -(weights.conversion * both * p_ctcvr.log() + (1 - both) * (1 - p_ctcvr).log())
    return torch.stack([ctr.sum(), ctcvr.sum()])


@weighted
def test_loss_and_gradients_equal_the_direct_formula(weights: ClassWeights) -> None:
    inputs = _grid(MODERATE)
    losses, *gradients = _gradients(*inputs, weights)
    a, b, click, conversion = (tensor.double() for tensor in inputs)
    a, b = a.requires_grad_(), b.requires_grad_()
    expected = _direct(a, b, click, conversion, weights)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-6, atol=0)
    for found, exact in zip(gradients, torch.autograd.grad(expected.sum(), (a, b)), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=1e-7)


@weighted
def test_loss_and_gradients_at_extreme_logits(weights: ClassWeights) -> None:
    """Exact values from s(-a), s(-b) instead of 1 - p: with s = sigmoid, d/da of the CTCVR loss is
    -s(-a) where converted and s(-a) p / (1 - p) elsewhere, 1 - p = s(-a) + s(a) s(-b).
    """
    a, b, click, conversion = inputs = _grid(EXTREME)
    losses, grad_a, grad_b = _gradients(*inputs, weights)
    log, a, b, both = torch.nn.functional.logsigmoid, a.double(), b.double(), (click * conversion).bool()
    log_p, log_rest = log(a) + log(b), torch.logaddexp(log(-a), log(a) + log(-b))
    ctr_weight = torch.where(click.bool(), weights.click, 1.0).double()
    ctcvr_weight = torch.where(both, weights.conversion, 1.0).double()
    ctr = -(ctr_weight * torch.where(click.bool(), log(a), log(-a))).sum()
    ctcvr = -(ctcvr_weight * torch.where(both, log_p, log_rest)).sum()
    torch.testing.assert_close(losses.double(), torch.stack([ctr, ctcvr]), rtol=1e-6, atol=0)
    for found, x, base in ((grad_a, a, torch.sigmoid(a) - click), (grad_b, b, torch.zeros_like(b))):
        by_x = torch.where(both, -torch.sigmoid(-x), torch.exp(log(-x) + log_p - log_rest))
        expected = ctr_weight * base + ctcvr_weight * by_x
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_each_loss_alone_equals_the_paper_s_formula_with_400_digits() -> None:
    """In a sum the largest terms would hide an error of the small ones."""
    logits = [-200.0, -90.0, -30.0, -3.0, 0.0, 4.0, 30.0, 90.0, 200.0]
    for a, b, (click, conversion) in itertools.product(logits, logits, LABELS):
        found = _losses(*(torch.tensor([x]) for x in (a, b, click, conversion)))
        with mpmath.workdps(400):
            p_ctr, p_cvr = (1 / (1 + mpmath.exp(-x)) for x in (a, b))
            likelihoods = (
                p_ctr if click else 1 - p_ctr,
                p_ctr * p_cvr if click and conversion else 1 - p_ctr * p_cvr,
            )
            exact = [float(-mpmath.log(likelihood)) for likelihood in likelihoods]
        smallest = 1e-38  # of float32's full precision
        assert found.tolist() == pytest.approx(exact, rel=1e-5, abs=smallest), (a, b, click, conversion)


@pytest.mark.parametrize("size", [0, 5])
def test_losses_are_sums(size: int) -> None:
    zeros = torch.zeros(size)
    half, quarter = 0.6931471805599453, 0.2876820724517809  # -ln 1/2 and -ln 3/4
    losses = _losses(zeros, zeros, zeros, zeros)
    torch.testing.assert_close(losses, size * torch.tensor([half, quarter]))


def test_probabilities_multiply() -> None:
    p_ctr, p_cvr, p_ctcvr = Network.probabilities(torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0]))
    torch.testing.assert_close(p_ctr, torch.tensor([0.5, 0.8807971]))
    torch.testing.assert_close(p_cvr, torch.tensor([0.5, 0.2689414]))
    torch.testing.assert_close(p_ctcvr, p_ctr * p_cvr)


@weighted
def test_a_weight_multiplies_the_terms_of_its_impression(weights: ClassWeights) -> None:
    inputs = _grid(MODERATE)
    times = torch.arange(len(inputs[0])) % 4  # none, once, twice, three times
    repeated = [tensor.repeat_interleave(times) for tensor in inputs]
    found = _losses(*inputs, weights, times.float())
    torch.testing.assert_close(found, _losses(*repeated, weights), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rate", [2.14e-4, 0.3])
def test_epsilon_moves_the_best_prediction_as_paddlepaddle_s_does(rate: float) -> None:
    """The minimum of -q log(p + e) - (1 - q) log(1 - p + e) is at p = q - e (1 - 2 q)."""
    epsilon = 1e-4
    p = torch.linspace(rate / 3, 1.5 * rate, 20_001, dtype=torch.float64)
    logit = torch.logit(p)
    terms = rate * binary_terms(logit, torch.ones_like(p), epsilon=epsilon)
    terms += (1 - rate) * binary_terms(logit, torch.zeros_like(p), epsilon=epsilon)
    assert p[terms.argmin()].item() == pytest.approx(rate - epsilon * (1 - 2 * rate), rel=2e-3)


def test_epsilon_stands_in_all_losses_of_the_configuration() -> None:
    a, b, click, conversion = _grid(MODERATE)
    labels = Labels(click, conversion, epsilon=1e-3)
    p, q = torch.sigmoid(a).double(), (torch.sigmoid(a) * torch.sigmoid(b)).double()
    both = click * conversion
    of_clicks = -torch.log(torch.where(click > 0, p, 1 - p) + 1e-3).sum()
    of_both = -torch.log(torch.where(both > 0, q, 1 - q) + 1e-3).sum()
    assert click_loss(a, labels).item() == pytest.approx(of_clicks.item(), rel=1e-5)
    assert entire_space_loss(a, b, labels).item() == pytest.approx(of_both.item(), rel=1e-5)
