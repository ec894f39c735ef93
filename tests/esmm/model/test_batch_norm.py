"""Batch norm on one worker against torch's own (on several: workers/test_one_and_several)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esmm.model.batch_norm import BatchNorm
from esmm.model.esmm import Esmm
from esmm.model.network import TASKS
from esmm.model_config import ModelConfig
from tests.fixtures.ali_ccp import ALI_CCP, IMPRESSION_FIELDS, USER_FIELDS
from tests.fixtures.workers import ONE_WORKER

NUM_TOWERS, WIDTH = 2, 5


@pytest.fixture
def pair() -> tuple[BatchNorm, list[nn.BatchNorm1d]]:
    """Ours for all towers, and torch's for each, with the same weights."""
    generator = torch.Generator().manual_seed(3)
    ours = BatchNorm(NUM_TOWERS, WIDTH, ONE_WORKER, "norm")
    theirs = [nn.BatchNorm1d(WIDTH) for _ in range(NUM_TOWERS)]
    with torch.no_grad():
        for name in ("weight", "bias"):
            values = torch.randn(NUM_TOWERS, WIDTH, generator=generator)
            getattr(ours, name).copy_(values)
            for norm, row in zip(theirs, values, strict=True):
                getattr(norm, name).copy_(row)
    return ours, theirs


def _hidden(seed: int, rows: int = 30) -> list[Tensor]:
    """Columns with means and deviations of their own, as views of one tensor like the first layer's."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(rows, NUM_TOWERS * WIDTH, generator=generator)
    whole = whole * torch.linspace(0.1, 3, NUM_TOWERS * WIDTH) + torch.linspace(-20, 20, NUM_TOWERS * WIDTH)
    return list(whole.chunk(NUM_TOWERS, 1))


Pair = tuple[BatchNorm, list[nn.BatchNorm1d]]


def test_a_step_without_impressions_changes_nothing(pair: Pair) -> None:
    ours, _ = pair
    ours(_hidden(1))
    before = {name: values.clone() for name, values in ours.state_dict().items()}
    inputs = [x.requires_grad_() for x in _hidden(2, rows=0)]
    torch.autograd.backward(ours(inputs), _hidden(3, rows=0))
    for name, values in ours.state_dict().items():
        torch.testing.assert_close(values, before[name], rtol=0, atol=0)
    for parameter in (ours.weight, ours.bias):
        assert parameter.grad is not None and not parameter.grad.any()


def test_forward_backward_and_running_statistics_equal_torch(pair: Pair) -> None:
    ours, theirs = pair
    for seed in range(3):
        gradients = _hidden(seed + 10)
        inputs = [x.clone().requires_grad_() for x in _hidden(seed)]
        copies = [x.detach().clone().requires_grad_() for x in inputs]
        outputs = ours(inputs)
        expected = [norm(x) for norm, x in zip(theirs, copies, strict=True)]
        torch.autograd.backward(outputs, gradients)
        torch.autograd.backward(expected, gradients)
        for found, exact, x, copy in zip(outputs, expected, inputs, copies, strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(x.grad, copy.grad, rtol=1e-4, atol=1e-4)
    for name in ("running_mean", "running_var"):
        expected_rows = torch.stack([getattr(norm, name) for norm in theirs])
        torch.testing.assert_close(getattr(ours, name), expected_rows, rtol=1e-5, atol=1e-6)
    for name in ("weight", "bias"):
        expected_rows = torch.stack([getattr(norm, name).grad for norm in theirs])
        torch.testing.assert_close(getattr(ours, name).grad, expected_rows, rtol=1e-4, atol=1e-4)


def test_evaluation_uses_the_running_statistics_and_leaves_them(pair: Pair) -> None:
    ours, theirs = pair
    for module in (ours, *theirs):
        module([*_hidden(1)]) if module is ours else module(_hidden(1)[theirs.index(module)])
        module.eval()
    before = {name: buffer.clone() for name, buffer in ours.named_buffers()}
    for found, norm, x in zip(ours(_hidden(2)), theirs, _hidden(2), strict=True):
        torch.testing.assert_close(found, norm(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(buffer, before[name]) for name, buffer in ours.named_buffers())


def test_statistics_keep_a_small_deviation_beside_a_large_mean() -> None:
    norm = BatchNorm(1, 1, ONE_WORKER, "norm")
    x = 1000 + torch.linspace(-0.5, 0.5, 1001).unsqueeze(1)
    (found,) = norm([x])
    assert found.std(correction=0).item() == pytest.approx(1, rel=1e-2)
    assert found.mean().item() == pytest.approx(0, abs=1e-2)


def test_the_precision_of_the_input_is_kept_and_the_statistics_are_float32(pair: Pair) -> None:
    ours, _ = pair
    inputs = [x.bfloat16().requires_grad_() for x in _hidden(1)]
    exact = ours([x.detach().float() for x in inputs])
    outputs = ours(inputs)
    for found, expected in zip(outputs, exact, strict=True):
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected.bfloat16())


def test_one_row_becomes_the_bias_and_no_row_stays_none(pair: Pair) -> None:
    """torch's refuses both; here a rank may have few impressions or none."""
    ours, _ = pair
    for found, bias in zip(ours(_hidden(1, rows=1)), ours.bias, strict=True):
        torch.testing.assert_close(found[0], bias, rtol=0, atol=1e-5)
    assert all(buffer.isfinite().all() for buffer in ours.buffers())


DIM, TOWERS, ROWS, CONTEXTS = 3, [6, 4], 12, 4


def _network() -> Esmm:
    config = ModelConfig(embedding_dim=DIM, towers=TOWERS, batch_norm=True)
    torch.manual_seed(5)
    network = Esmm(config, ALI_CCP, ONE_WORKER)
    network.initialise()
    return network


def _plain_logits(network: Esmm, x: Tensor, tower: int) -> Tensor:
    """[B, 23*D] -> [B], layer by layer with torch's functions."""
    state = network.state_dict()
    rows = slice(tower * TOWERS[0], (tower + 1) * TOWERS[0])
    x = (
        x @ torch.cat([state["context.weight"], state["item.weight"]], 1)[rows].t()
        + state["context.bias"][rows]
    )
    for level in range(len(TOWERS)):
        scale, shift = state[f"norms.{level}.weight"][tower], state[f"norms.{level}.bias"][tower]
        x = F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
        x = F.linear(
            x, state[f"towers.{tower}.{2 * level}.weight"], state[f"towers.{tower}.{2 * level}.bias"]
        )
    return x.squeeze(1)


def test_the_network_normalises_every_hidden_layer_before_its_relu() -> None:
    network, generator = _network(), torch.Generator().manual_seed(8)
    context = torch.randn(CONTEXTS, len(USER_FIELDS) * DIM, generator=generator)
    item = torch.randn(ROWS, len(IMPRESSION_FIELDS) * DIM, generator=generator)
    index = (torch.arange(ROWS) % CONTEXTS).sort().values
    pooled = torch.cat([context.view(-1, DIM), item.view(-1, DIM)]).requires_grad_()
    whole = torch.cat([context[index], item], 1).requires_grad_()
    logits = network(pooled, index)
    expected = [_plain_logits(network, whole, tower) for tower in range(TASKS)]
    weights = torch.randn(TASKS, ROWS, generator=generator)
    for found, exact in zip(logits, expected, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
    torch.autograd.backward(logits, list(weights))
    torch.autograd.backward(expected, list(weights))
    assert pooled.grad is not None and whole.grad is not None
    of_items = pooled.grad[CONTEXTS * len(USER_FIELDS) :].view(ROWS, -1)
    torch.testing.assert_close(of_items, whole.grad[:, len(USER_FIELDS) * DIM :], rtol=1e-3, atol=1e-5)


def test_a_bias_before_a_norm_is_not_trained_and_all_else_is() -> None:
    frozen = {name for name, parameter in _network().named_parameters() if not parameter.requires_grad}
    assert frozen == {"context.bias", "towers.0.0.bias", "towers.1.0.bias"}
