"""What stands beside plain towers, against its formula with each impression on its own: dots and wide."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from esmm.model.apart import Apart
from esmm.model.esmm import Esmm
from esmm.model.esmm_ns import EsmmNs
from esmm.model.models import network_class
from esmm.model.network import Network
from esmm.model_config import ModelConfig
from tests.fixtures.ali_ccp import ALI_CCP, IMPRESSION_FIELDS, USER_FIELDS
from tests.fixtures.workers import ONE_WORKER

DIM = 4
INDEX = torch.tensor([0, 0, 1, 1, 1, 2, 2])
CONTEXTS, IMPRESSIONS = 3, len(INDEX)


def _network(name: str, **options: object) -> Network:
    config = ModelConfig.model_validate({"name": name, "embedding_dim": DIM, "towers": [6, 5], **options})
    torch.manual_seed(3)
    network = network_class(name)(config, ALI_CCP, ONE_WORKER)
    network.initialise()
    return network


def _fields(width: int) -> tuple[Tensor, Tensor]:
    """What is pooled, and the same as [B, F, width] for each impression on its own."""
    torch.manual_seed(4)
    user = torch.randn(CONTEXTS, len(USER_FIELDS), width)
    item = torch.randn(IMPRESSIONS, len(IMPRESSION_FIELDS), width)
    pooled = torch.cat([user.flatten(0, 1), item.flatten(0, 1)]).requires_grad_()
    split = CONTEXTS * len(USER_FIELDS)
    users, items = pooled[:split].view_as(user), pooled[split:].view_as(item)
    return pooled, torch.cat([users[INDEX], items], 1)


def _plain(network: Esmm, x: Tensor, extra: Tensor | float = 0.0) -> list[Tensor]:
    """The towers' logits by torch's own layers. x [B, n]; extra: beside the first layers' products."""
    if network.config.input_norm:
        x = F.layer_norm(x, x.shape[1:])
    first = torch.cat([network.context.weight, network.item.weight], 1)
    hidden = F.relu(F.linear(x, first, network.context.bias) + extra).chunk(len(network.towers), 1)
    return [tower(h).squeeze(1) for tower, h in zip(network.towers, hidden, strict=True)]


def _products(network: Esmm, fields: Tensor) -> Tensor:
    """[B, width]: each pair's dot product, times its column of either weight."""
    assert network.dots is not None
    users, items = range(len(USER_FIELDS)), range(len(USER_FIELDS), fields.shape[1])
    pairs = [*itertools.combinations(users, 2), *itertools.combinations(items, 2)]
    pairs += list(itertools.product(items, users))
    columns = torch.cat([network.dots.context.weight, network.dots.item.weight], 1)
    scale = torch.full((IMPRESSIONS,), DIM**-0.5)
    if network.config.input_norm:
        scale = scale / (fields.flatten(1).var(1, unbiased=False) + 1e-5)
    found = torch.zeros(IMPRESSIONS, columns.shape[0])
    for (a, b), column in zip(pairs, columns.t(), strict=True):
        found = found + ((fields[:, a] * fields[:, b]).sum(1) * scale).unsqueeze(1) * column
    return found


@pytest.mark.parametrize("input_norm", [False, True])
def test_first_layers_read_the_dot_products_of_all_pairs(input_norm: bool) -> None:
    network = _network("esmm", dots=True, input_norm=input_norm)
    assert isinstance(network, Esmm)
    pooled, fields = _fields(DIM)
    expected = _plain(network, fields.flatten(1), _products(network, fields))
    _assert_same(network(pooled, INDEX), expected, [pooled, *network.parameters()])


@pytest.mark.parametrize("dots", [False, True])
def test_a_logit_has_the_first_order_numbers_of_its_tower(dots: bool) -> None:
    network = _network("esmm", wide=True, dots=dots)
    assert isinstance(network, Esmm)
    pooled, both = _fields(network.row_width(network.config))
    fields, first_order = both[:, :, :DIM], both[:, :, DIM:].sum(1)
    extra = _products(network, fields) if dots else 0.0
    plain = _plain(network, fields.flatten(1), extra)
    expected = [logit + wide for logit, wide in zip(plain, first_order.unbind(1), strict=True)]
    _assert_same(network(pooled, INDEX), expected, [pooled, *network.parameters()])


def test_networks_apart_have_numbers_of_their_own() -> None:
    network = _network("esmm_ns", wide=True)
    assert isinstance(network, EsmmNs)
    width = Apart.row_width(network.config)
    assert width == 2 * (DIM + 1)
    pooled, both = _fields(width)
    for place, logit in enumerate(network(pooled, INDEX)):
        own = both[:, :, place * (DIM + 1) : (place + 1) * (DIM + 1)]
        alone = network.networks()[place]
        (expected,) = _plain(alone, own[:, :, :DIM].flatten(1))  # type: ignore[arg-type]
        torch.testing.assert_close(logit, expected + own[:, :, DIM].sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mmoe", "ple", "dcmt", "esm2", "base"])
def test_they_go_with_any_model(name: str) -> None:
    network = _network(name, wide=True, dots=True, cross_layers=1, input_norm=True)
    width = network.row_width(network.config)
    pooled, _ = _fields(width)
    logits = network(pooled, INDEX)
    sum(logit.sum() for logit in logits).backward()  # type: ignore[union-attr]
    assert pooled.grad is not None
    impressions = [*INDEX.bincount().repeat_interleave(len(USER_FIELDS)), *[1] * len(pooled)]
    assert pooled.grad[:, -1].tolist() == impressions[: len(pooled)]  # that read the number of a field


def _assert_same(found: tuple[Tensor, ...], expected: list[Tensor], inputs: list[Tensor]) -> None:
    """Values, and gradients of a sum that weighs them differently."""
    weights = [torch.linspace(-1, 2, IMPRESSIONS) * (place + 1) for place in range(len(found))]
    gradients = []
    for logits in (found, expected):
        total = sum((weight * logit).sum() for weight, logit in zip(weights, logits, strict=True))
        gradients.append(torch.autograd.grad(total, inputs))  # type: ignore[arg-type]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
