"""ESMM's forward pass and loss against an independent calculation on plain lists."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from esmm.batch import Batch
from esmm.config import Config
from esmm.model.input_norm import NormedFirstLayer
from esmm.model.loss import Labels
from esmm.model.model import Model
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.training_run import base_rates
from tests.fixtures.plain_batches import PlainBatch, few_rows, random_batch, to_batch
from tests.fixtures.workers import ONE_WORKER

NUM_ROWS, DIM, TOWERS = 60, 5, (12, 7)
CONFIG = Config.model_validate(
    {"model": {"embedding_dim": DIM, "towers": list(TOWERS), "embedding_init": 0.5}}
)


@pytest.fixture
def model() -> Model:
    made = make_model(CONFIG.model, few_rows(NUM_ROWS), ONE_WORKER)
    initialise(made, CONFIG)
    return made


def _sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def _by_hand(
    model: Model, plain: PlainBatch, normalised: bool = False
) -> tuple[list[list[float]], list[float]]:
    """Logits per impression and the two summed losses: impression by impression, tower by tower."""
    table = model.embedding.table.double().numpy()
    weights = {name: p.detach().double().numpy() for name, p in model.network.named_parameters()}
    first = np.hstack([weights["context.weight"], weights["item.weight"]])
    logits, losses = [], [0.0, 0.0]
    for impression in plain.impressions:
        bags = plain.contexts[impression.context] + impression.fields
        x = np.concatenate([sum((w * table[row] for row, w in bag), np.zeros(DIM)) for bag in bags])
        if normalised:
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        towers = []
        for task in range(2):
            rows = slice(task * TOWERS[0], (task + 1) * TOWERS[0])
            h = np.maximum(first[rows] @ x + weights["context.bias"][rows], 0)
            h = np.maximum(weights[f"towers.{task}.0.weight"] @ h + weights[f"towers.{task}.0.bias"], 0)
            towers.append((weights[f"towers.{task}.2.weight"] @ h + weights[f"towers.{task}.2.bias"]).item())
        logits.append(towers)
        p_ctr, p_ctcvr = _sigmoid(towers[0]), _sigmoid(towers[0]) * _sigmoid(towers[1])
        both = impression.click * impression.conversion
        losses[0] -= np.log(p_ctr if impression.click else 1 - p_ctr)
        losses[1] -= np.log(p_ctcvr if both else 1 - p_ctcvr)
    return logits, losses


def test_forward_and_loss_equal_a_calculation_by_hand(model: Model) -> None:
    plain = random_batch(random.Random(0), num_contexts=6, num_impressions=40, num_rows=NUM_ROWS)
    batch = to_batch(plain, NUM_ROWS)
    (ctr, cvr), _ = model.forward(batch)
    logits, losses = _by_hand(model, plain)
    np.testing.assert_allclose(torch.stack([ctr, cvr], 1).detach().numpy(), logits, rtol=1e-4, atol=1e-6)
    found = model.network.loss_sums((ctr, cvr), Labels(batch.click, batch.conversion)).detach().numpy()
    np.testing.assert_allclose(found, losses, rtol=1e-6)


def test_input_norm_equals_a_calculation_by_hand() -> None:
    made = make_model(CONFIG.model.model_copy(update={"input_norm": True}), few_rows(NUM_ROWS), ONE_WORKER)
    initialise(made, CONFIG)
    plain = random_batch(random.Random(0), num_contexts=6, num_impressions=40, num_rows=NUM_ROWS)
    (ctr, cvr), _ = made.forward(to_batch(plain, NUM_ROWS))
    logits, _ = _by_hand(made, plain, normalised=True)
    np.testing.assert_allclose(torch.stack([ctr, cvr], 1).detach().numpy(), logits, rtol=1e-4, atol=1e-5)


def test_input_norm_has_the_gradients_of_layer_norm() -> None:
    """Of torch's own, before one plain layer; the fields of a context are those of all its impressions."""
    torch.manual_seed(1)
    pooled = torch.randn(2 * 3 + 5 * 2, 4, requires_grad=True)  # 2 contexts of 3 fields, 5 impressions of 2
    index = torch.tensor([0, 0, 0, 1, 1])
    context, item = torch.randn(6, 12, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    bias, slope = torch.randn(6, requires_grad=True), torch.randn(5, 6)
    parameters = (pooled, context, bias, item)
    for relu in (False, True):
        towers = NormedFirstLayer.apply(pooled, index, context, bias, item, 2, torch.float32, relu)
        found = torch.autograd.grad((torch.cat(towers, 1) * slope).sum(), parameters)
        x = torch.cat([pooled[:6].view(2, 12)[index], pooled[6:].view(5, 8)], 1)
        y = F.linear(F.layer_norm(x, (20,)), torch.cat([context, item], 1), bias)
        expected = torch.autograd.grad(((F.relu(y) if relu else y) * slope).sum(), parameters)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_first_layer_starts_like_one_layer_over_all_fields(model: Model) -> None:
    network = model.network
    bound = (23 * DIM) ** -0.5
    for parameter in (network.context.weight, network.item.weight, network.context.bias):
        assert parameter.abs().max() <= bound
        assert parameter.abs().max() > 0.8 * bound


def test_a_network_s_tensors_have_the_names_that_checkpoints_know() -> None:
    """Of all checkpoints so far: another name or shape, and none of them could be read."""
    values = {"embedding_dim": DIM, "towers": list(TOWERS), "batch_norm": True}
    model = make_model(Config.model_validate({"model": values}).model, few_rows(NUM_ROWS), ONE_WORKER)
    found = {name: tuple(tensor.shape) for name, tensor in model.network.state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {
        "context.weight": (24, 13 * DIM),
        "context.bias": (24,),
        "item.weight": (24, 10 * DIM),
    }
    for task in range(2):
        expected |= {f"towers.{task}.0.weight": (7, 12), f"towers.{task}.0.bias": (7,)}
        expected |= {f"towers.{task}.2.weight": (1, 7), f"towers.{task}.2.bias": (1,)}
    for level, width in enumerate(TOWERS):
        norm = ("weight", "bias", "running_mean", "running_var")
        expected |= {f"norms.{level}.{name}": (2, width) for name in norm}
    assert found == expected


def _empty() -> Batch:
    return to_batch(PlainBatch([], []), NUM_ROWS)


def test_an_empty_batch_has_zero_gradients(model: Model) -> None:
    (ctr, cvr), lookup = model.forward(_empty())
    batch = _empty()
    model.network.loss_sums((ctr, cvr), Labels(batch.click, batch.conversion)).sum().backward()
    assert ctr.shape == cvr.shape == (0,)
    assert lookup.pooled.grad is not None and lookup.pooled.grad.shape == (0, DIM)
    for name, parameter in model.network.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "lazy_adam"])
def test_training_learns_a_batch_by_heart(optimizer: str) -> None:
    values = CONFIG.model_dump()
    values["optimizer"] = {
        "dense": {"learning_rate": 0.01},
        "sparse": {"name": optimizer, "learning_rate": 0.05},
    }
    config = Config.model_validate(values)
    model = make_model(config.model, few_rows(NUM_ROWS), ONE_WORKER)
    initialise(model, config)
    trained = TrainStep(config, model, ONE_WORKER)
    batch = to_batch(random_batch(random.Random(4), 6, 40, NUM_ROWS), NUM_ROWS)
    first = trained(batch, 40).sum()
    for _ in range(100):
        last = trained(batch, 40).sum()
    assert last < 0.1 * first


def test_untrained_towers_predict_the_rates_of_the_samples() -> None:
    config = Config.model_validate({"model": {"embedding_dim": DIM, "towers": list(TOWERS)}})
    model = make_model(config.model, few_rows(NUM_ROWS), ONE_WORKER)
    initialise(model, config)
    model.network.start_at(base_rates({"impressions": 1000, "clicks": 40, "conversions": 0}))
    plain = random_batch(random.Random(4), num_contexts=20, num_impressions=300, num_rows=NUM_ROWS)
    (ctr, cvr), _ = model.forward(to_batch(plain, NUM_ROWS))
    p_ctr, p_cvr, p_ctcvr = model.network.probabilities(ctr, cvr)
    assert p_ctr.mean().item() == pytest.approx(41 / 1002, rel=0.3)
    assert p_cvr.mean().item() == pytest.approx(1 / 42, rel=0.3)
    assert torch.equal(p_ctcvr, p_ctr * p_cvr)
