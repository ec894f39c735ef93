"""A whole step against torch's own autograd and optimisers on a dense table."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esmm.batch import Batch
from esmm.config import Config
from esmm.model.esmm import Esmm
from esmm.model.loss import Labels
from esmm.training.train_step import TrainStep, initialise, make_model
from tests.fixtures.ali_ccp import ALI_CCP
from tests.fixtures.plain_batches import few_rows, random_batch, to_batch
from tests.fixtures.workers import ONE_WORKER

NUM_ROWS, DIM, STEPS, IMPRESSIONS = 50, 4, 6, 30
RATE = 0.5


def _config(optimizer: dict[str, Any] | None = None, precision: str = "fp32") -> Config:
    sparse = {"name": "sgd", "learning_rate": RATE} | (optimizer or {}).get("sparse", {})
    return Config.model_validate(
        {
            "model": {"embedding_dim": DIM, "towers": [16, 8], "embedding_init": 0.5},
            "optimizer": (optimizer or {}) | {"sparse": sparse},
            "loss": {"task_weights": {"ctcvr": 2.0}, "class_weights": {"click": 3.0}},
            "train": {"precision": precision},
        }
    )


def _batches() -> list[Batch]:
    rng = random.Random(5)
    return [to_batch(random_batch(rng, 4, IMPRESSIONS, NUM_ROWS - 5), NUM_ROWS) for _ in range(STEPS)]


def _trained(config: Config) -> TrainStep:
    model = make_model(config.model, few_rows(NUM_ROWS), ONE_WORKER)
    initialise(model, config)
    return TrainStep(config, model, ONE_WORKER)


def _true_table(trained: TrainStep) -> Tensor:
    return trained.model.embedding.table * trained.model.embedding.scale


class DenseModel(nn.Module):
    """The same network over an ordinary parameter, pooled by one matrix product."""

    def __init__(self, config: Config, trained: TrainStep) -> None:
        super().__init__()
        self.table = nn.Parameter(trained.model.embedding.table.clone())
        self.network = Esmm(config.model, ALI_CCP, ONE_WORKER)
        self.network.load_state_dict(trained.model.network.state_dict())
        self.l2 = config.optimizer.sparse.l2

    def loss(self, batch: Batch) -> Tensor:
        pooling = batch.require_request().pooling
        matrix = torch.zeros(len(pooling.offsets) - 1, NUM_ROWS)
        bag_of_token = torch.repeat_interleave(torch.arange(len(matrix)), pooling.offsets.diff())
        matrix.index_put_((bag_of_token, pooling.ids.long()), pooling.weights, accumulate=True)
        ctr, cvr = self.network(matrix @ self.table, batch.context_index)
        weights = _config().loss.class_weights
        losses = self.network.loss_sums((ctr, cvr), Labels(batch.click, batch.conversion, weights))
        touched = self.table[pooling.rows.long()]
        return (losses[0] + 2 * losses[1]) / IMPRESSIONS + self.l2 / 2 * touched.square().sum()


@pytest.mark.parametrize(
    "optimizer",
    [
        {},
        {"sparse": {"l2": 0.3}},
        {"sparse": {"weight_decay": 0.1}, "dense": {"weight_decay": 0.2}},
        {"clip_grad_norm": 0.2, "sparse": {"l2": 0.3, "weight_decay": 0.9}},
    ],
)
def test_sparse_rows_follow_dense_ones(optimizer: dict[str, Any]) -> None:
    """Rows no batch has touched decay too, and the clipped norm is that of the whole gradient."""
    config = _config(optimizer)
    trained = _trained(config)
    dense = DenseModel(config, trained)
    decay = config.optimizer.dense.weight_decay
    towers = torch.optim.AdamW(dense.network.parameters(), lr=0.001, weight_decay=decay)
    for batch in _batches():
        trained(batch, IMPRESSIONS)
        dense.zero_grad()
        dense.loss(batch).backward()
        norm = nn.utils.clip_grad_norm_(dense.parameters(), config.optimizer.clip_grad_norm or 1e9)
        torch.testing.assert_close(trained.grad_norm(), norm, rtol=1e-4, atol=0)
        towers.step()
        with torch.no_grad():
            assert dense.table.grad is not None
            dense.table.mul_(1 - RATE * config.optimizer.sparse.weight_decay)
            dense.table.sub_(dense.table.grad, alpha=RATE)
    torch.testing.assert_close(_true_table(trained), dense.table.detach(), rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(trained.parameters, dense.network.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-4, atol=1e-6)


def test_bf16_products_follow_fp32_within_their_rounding() -> None:
    runs = [_trained(_config(precision=precision)) for precision in ("fp32", "bf16")]
    start = runs[0].model.embedding.table.clone()
    for batch in _batches():
        losses = [trained(batch, IMPRESSIONS) for trained in runs]
        torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)
        assert not torch.equal(losses[1], losses[0]), "the products were not bf16"
    moved = [trained.model.embedding.table - start for trained in runs]
    assert (moved[1] - moved[0]).norm() < 0.05 * moved[0].norm()
    assert all(p.dtype == torch.float32 for p in runs[1].parameters)


@pytest.mark.parametrize(("flag", "warnings"), [("avx512_bf16", 0), ("amx_bf16", 0), ("avx512_f", 1)])
def test_bf16_without_instructions_for_it_is_told(
    flag: str, warnings: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True, "arm_bf16": False})
    _trained(_config(precision="fp32"))
    assert not caplog.messages
    _trained(_config(precision="bf16"))
    assert ["fp32 is faster" in message for message in caplog.messages] == [True] * warnings


def test_start_values_are_those_of_the_seed() -> None:
    """torch's own for linear layers, drawn one after the other; so that an old seed means what it meant."""
    network, config = _trained(_config()).model.network, _config()
    torch.manual_seed(config.train.seed)
    width = network.context.in_features + network.item.in_features
    for parameter in (network.context.weight, network.context.bias, network.item.weight):
        expected = nn.init.uniform_(torch.empty_like(parameter), -(width**-0.5), width**-0.5)
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=0)
    for layer in (module for module in network.towers.modules() if isinstance(module, nn.Linear)):
        weight, bias = layer.weight.clone(), layer.bias.clone()
        layer.reset_parameters()
        assert torch.equal(layer.weight, weight) and torch.equal(layer.bias, bias)


def test_start_values_are_drawn_on_the_cpu_whatever_the_device() -> None:
    """Where the tensors lie elsewhere, torch's generator of the CPU has given as many numbers as for it."""
    config, states = _config(), list[Tensor]()
    for device in ("cpu", "meta"):
        world = replace(ONE_WORKER, device=torch.device(device))
        initialise(make_model(config.model, few_rows(NUM_ROWS), world), config)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_learning_rates_are_multiplied_by_the_factor() -> None:
    batch, config = _batches()[0], _config()
    full, half = _trained(config), _trained(config)
    start = full.model.embedding.table.clone()
    half.set_learning_rates(0.5)
    for trained in (full, half):
        trained(batch, IMPRESSIONS)
    torch.testing.assert_close(
        half.model.embedding.table - start, 0.5 * (full.model.embedding.table - start), rtol=1e-3, atol=1e-6
    )
    assert half.dense.param_groups[0]["lr"] == pytest.approx(0.0005)
