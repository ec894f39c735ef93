"""Every model's losses and structure against a few lines of its paper's formulas, in float64."""

from functools import partial
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from cli.errors import InputError
from esmm.model.aitm import Aitm
from esmm.model.dbmtl import Dbmtl
from esmm.model.esm2 import mixture_logit
from esmm.model.esmm import Esmm
from esmm.model.inputs import SharedInput
from esmm.model.loss import Labels
from esmm.model.mixture import mixed
from esmm.model.mmoe import Mmoe
from esmm.model.models import network_class
from esmm.model.network import Network, Rates
from esmm.model.ple import Level, Ple
from esmm.model_config import MODELS_WITH, LossConfig, ModelConfig
from tests.fixtures.ali_ccp import ALI_CCP, IMPRESSION_FIELDS, USER_FIELDS
from tests.fixtures.workers import ONE_WORKER

Array = npt.NDArray[np.float64]
NAMES = get_args(ModelConfig.model_fields["name"].annotation)
DIM, WIDTH, LAST = 3, 6, 4
CONTEXTS, IMPRESSIONS = 3, 9
CLICK = torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0, 0])
CONVERSION = torch.tensor([1.0, 0, 0, 0, 0, 1, 0, 0, 0])
ACTION = torch.tensor([1.0, 0, 1, 0, 0, 0, 0, 0, 0])
WEIGHT = torch.tensor([1.0, 2, 0.5, 1, 1, 3, 1, 0, 1])


def _network(name: str, **options: object) -> Network:
    config = ModelConfig.model_validate(
        {"name": name, "embedding_dim": DIM, "towers": [WIDTH, LAST], **options}
    )
    torch.manual_seed(7)
    network = network_class(name)(config, ALI_CCP, ONE_WORKER)
    network.initialise()
    return network


def _input(tables: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(8)
    num = CONTEXTS * len(USER_FIELDS) + IMPRESSIONS * len(IMPRESSION_FIELDS)
    return torch.randn(num, tables * DIM), torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])


def _logits(number: int) -> list[Tensor]:
    torch.manual_seed(9)
    return [2 * torch.randn(IMPRESSIONS) - 1 for _ in range(number)]


def _s(logit: Tensor) -> Array:
    return np.asarray(1 / (1 + np.exp(-logit.double().numpy())))


def _cross_entropy(label: Array, p: Array, epsilon: float) -> Array:
    return np.asarray(-label * np.log(p + epsilon) - (1 - label) * np.log(1 - p + epsilon))


def expected_losses(name: str, logits: list[Tensor], network: Network, epsilon: float = 0.0) -> list[float]:
    """The papers' sums, impression by impression; all weights are 1 or `WEIGHT`."""
    bce = partial(_cross_entropy, epsilon=epsilon)
    o, w = CLICK.double().numpy(), WEIGHT.double().numpy()
    both = o * CONVERSION.double().numpy()
    a, b, *third = (_s(logit) for logit in logits)
    chance = np.clip(a, 0.01, 0.99)
    ctr, ctcvr = bce(o, a), bce(both, a * b)
    clicks = {
        "base": o,
        "aman": o + 0.2 * (1 - o),
        "oversampling": o * np.where(both > 0, 5, 1),
        "unbias": o * np.minimum(1, 0.01 / a),
    }
    if name in clicks:
        return [(w * ctr).sum(), (w * clicks[name] * bce(both, b)).sum()]
    if name in ("division", "aitm"):
        losses = [(w * ctr).sum(), (w * bce(both, b)).sum()]
        return losses if name == "division" else [*losses, (w * np.maximum(b - a, 0)).sum()]
    own = [(w * ctr).sum(), (w * ctcvr).sum()]
    if name == "escm2_ips":
        return [*own, (w * o / chance * bce(both, b)).sum()]
    if name in ("escm2_dr", "mrdr"):
        guess, error = np.log1p(np.exp(logits[2].double().numpy())), bce(both, b)
        robust = guess + o / chance * (error - guess)
        imputed = 1 / chance if name == "escm2_dr" else (1 - chance) / chance**2
        return [*own, (w * robust).sum(), (w * o * imputed * (error - guess) ** 2).sum()]
    if name == "dcmt":
        dual = o / chance * bce(both, b) + (1 - o) / (1 - chance) * bce(1 - both, third[0])
        return [*own, (w * dual).sum(), (w * abs(b + third[0] - 1)).sum()]
    if name == "esm2":
        y1, y2, y3, y4 = a, b, *third
        pays = (1 - y2) * y4 + y2 * y3
        actions = (w * bce(o * ACTION.double().numpy(), y1 * y2)).sum()
        return [own[0], actions, (w * bce(both, y1 * pays)).sum()]
    if name == "ddpo":
        inverse, other = o / chance, (1 - o) / (1 - chance)
        clicked = inverse / inverse.sum() * bce(np.minimum(1, both + third[0]), b)
        unclicked = other / other.sum() * bce(third[0], b)
        dual = IMPRESSIONS * (clicked + unclicked)
        return [*own, (w * dual).sum(), (w * o * bce(both, third[0])).sum()]
    return own


@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_the_paper_s(name: str, epsilon: float) -> None:
    network = _network(name)
    outputs = network(*_input(network.TABLES))
    logits = _logits(len(outputs))
    labels = Labels(CLICK, CONVERSION, weight=WEIGHT, action=ACTION, epsilon=epsilon)
    found = network.loss_sums(logits, labels)
    assert len(found) == len(network.losses)
    expected = expected_losses(name, logits, network, epsilon)
    np.testing.assert_allclose(found.double(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["esmm", "shared_bottom", "mmoe", "ple", "dbmtl"])
def test_conversions_can_be_learnt_from_clicks_alone(name: str) -> None:
    network = _network(name, conversions="clicks")
    logits = _logits(2)
    found = network.loss_sums(logits, Labels(CLICK, CONVERSION, weight=WEIGHT))
    assert list(network.losses) == ["ctr", "cvr"]
    np.testing.assert_allclose(found.double(), expected_losses("base", logits, network), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_belong_together_and_start_at_the_rates(name: str) -> None:
    network = _network(name)
    network.start_at(Rates(0.04, 0.1, 0.3))
    pooled, index = _input(network.TABLES)
    p_ctr, p_cvr, p_ctcvr = network.probabilities(*network(0.02 * pooled, index))
    assert (p_ctr * p_cvr).tolist() == pytest.approx(p_ctcvr.tolist(), rel=1e-5)
    assert p_ctr.mean().item() == pytest.approx(0.04, rel=0.5)
    assert p_cvr.mean().item() == pytest.approx(0.1, rel=0.9)
    assert (p_cvr <= 1).all()


def test_esm2_s_pcvr_is_a_mixture_of_what_follows_an_action_and_what_does_not() -> None:
    logits = [*_logits(4), torch.tensor([90.0, -90]).repeat(5)[:IMPRESSIONS]]
    y1, y2, y3, y4 = (_s(logit) for logit in logits[:4])
    found = _network("esm2").probabilities(*logits[:4])
    expected = y1, (1 - y2) * y4 + y2 * y3, y1 * ((1 - y2) * y4 + y2 * y3)
    for tensor, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(tensor.double(), values, rtol=1e-5)
    far = mixture_logit(logits[4], logits[1], logits[2]).double()  # nothing underflows far from 0
    np.testing.assert_allclose(far, torch.where(logits[4] > 0, logits[1], logits[2]).double(), rtol=1e-5)


def test_pcvr_is_at_most_1_where_it_is_a_quotient() -> None:
    p_ctr, p_cvr, p_ctcvr = _network("division").probabilities(torch.tensor([0.0]), torch.tensor([1.0]))
    assert (p_ctr.item(), p_cvr.item(), p_ctcvr.item()) == (0.5, 1.0, 0.5)


@pytest.mark.parametrize("name", ["esmm_ns", "base", "division"])
def test_networks_apart_share_nothing(name: str) -> None:
    """Each logit depends on its half of the table and on its own parameters."""
    network = _network(name)
    pooled, index = _input(2)
    pooled.requires_grad_()
    for task, logit in enumerate(network(pooled, index)):
        named = dict(network.named_parameters())
        gradients = torch.autograd.grad(
            logit.sum(), [pooled, *named.values()], retain_graph=True, allow_unused=True
        )
        of_table = gradients[0].view(-1, 2, DIM)
        assert of_table[:, task].any() and not of_table[:, 1 - task].any()
        touched = {
            key.split(".")[1] for key, grad in zip(named, gradients[1:], strict=True) if grad is not None
        }
        assert touched == {str(task)}


def _x(network: Network) -> tuple[Tensor, SharedInput]:
    """Each impression's whole input [B, n], and what the network makes of it."""
    pooled, index = _input()
    split = CONTEXTS * len(USER_FIELDS)
    user, item = pooled[:split].view(CONTEXTS, -1), pooled[split:].view(IMPRESSIONS, -1)
    return torch.cat([user[index], item], 1), SharedInput(pooled, index, torch.float32, False)


def _firsts(network: Mmoe | Ple | Dbmtl | Aitm) -> tuple[Tensor, ...]:
    weight = torch.cat([network.context.weight, network.item.weight], 1)
    return F.relu(F.linear(_x(network)[0], weight, network.context.bias)).chunk(network.firsts, 1)


def _gate(network: Mmoe | Ple, place: int, experts: int) -> Tensor:
    gates = network.gates
    weight = torch.cat([gates.context.weight, gates.item.weight], 1)
    rows = slice(place * experts, (place + 1) * experts)
    return F.linear(_x(network)[0], weight[rows], gates.context.bias[rows]).softmax(1)


def test_mmoe_mixes_experts_by_a_gate_for_each_task() -> None:
    network = _network("mmoe", experts=3)
    assert isinstance(network, Mmoe)
    experts = torch.stack(_firsts(network), 1)
    assert experts.shape == (IMPRESSIONS, 3, WIDTH)
    for task, found in enumerate(network(*_input())):
        h = (_gate(network, task, 3).unsqueeze(2) * experts).sum(1)
        torch.testing.assert_close(found, network.towers[task](h).squeeze(1), rtol=1e-5, atol=1e-6)


def test_ple_mixes_own_and_shared_experts() -> None:
    network = _network("ple", experts=2)
    assert isinstance(network, Ple)
    own = _firsts(network)
    for task, found in enumerate(network(*_input())):
        experts = torch.stack([*own[2 * task : 2 * task + 2], *own[4:]], 1)
        h = (_gate(network, task, 4).unsqueeze(2) * experts).sum(1)
        torch.testing.assert_close(found, network.towers[task](h).squeeze(1), rtol=1e-5, atol=1e-6)


def test_a_later_level_of_ple_reads_the_groups_states() -> None:
    torch.manual_seed(1)
    level = Level(WIDTH, 1, last=False)
    states = [torch.randn(5, WIDTH) for _ in range(3)]
    found = level(states)
    experts = [F.relu(F.linear(h, e.weight, e.bias)) for h, e in zip(states, level.experts, strict=True)]
    choices = ([experts[0], experts[2]], [experts[1], experts[2]], experts)
    for state, gate, some, mixture in zip(states, level.gates, choices, found, strict=True):
        weights = F.linear(state, gate.weight, gate.bias).softmax(1)
        expected = torch.einsum("bi,bih->bh", weights, torch.stack(some, 1))
        torch.testing.assert_close(mixture, expected, rtol=1e-5, atol=1e-6)


def test_ple_has_as_many_levels_as_it_is_told() -> None:
    network = _network("ple", experts=1, levels=3)
    assert isinstance(network, Ple)
    assert [len(level.gates) for level in network.later] == [3, 2]
    assert all(logit.shape == (IMPRESSIONS,) for logit in network(*_input()))


def test_dbmtl_lets_conversions_read_what_clicks_have_come_to() -> None:
    network = _network("dbmtl")
    assert isinstance(network, Dbmtl)
    (bottom,) = _firsts(network)
    click, conversion = (tower[0](bottom) for tower in network.towers)
    ctr, cvr = network(*_input())
    relation = network.relation
    h = F.relu(F.linear(torch.cat([conversion, click], 1), relation.weight, relation.bias))
    torch.testing.assert_close(ctr, network.towers[0][1](click).squeeze(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cvr, network.towers[1][1](h).squeeze(1), rtol=1e-5, atol=1e-6)


def test_aitm_attends_to_its_own_tower_and_to_that_of_clicks() -> None:
    network = _network("aitm")
    assert isinstance(network, Aitm)
    click, conversion = (t[0](h) for t, h in zip(network.towers, _firsts(network), strict=True))
    u = torch.stack([conversion, network.transfer(click)], 1)
    q, k, v = (F.linear(u, m.weight, m.bias) for m in (network.query, network.key, network.value))
    z = ((q * k).sum(2) / LAST**0.5).softmax(1).unsqueeze(2).mul(v).sum(1)
    _, ctcvr = network(*_input())
    torch.testing.assert_close(ctcvr, network.towers[1][1](z).squeeze(1), rtol=1e-5, atol=1e-6)


def test_mixtures_are_weighted_sums() -> None:
    experts = [torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])]
    assert mixed(experts, torch.tensor([[0.25, 0.5]])).tolist() == [[5.25, 10.5]]


def test_options_of_other_models_are_refused() -> None:
    with pytest.raises(ValidationError, match="experts is an option of mmoe, ple, found it with name esmm"):
        ModelConfig(experts=3)
    with pytest.raises(ValidationError, match="negative_rate is an option of aman"):
        ModelConfig(name="base", negative_rate=0.5)
    with pytest.raises(InputError, match=r"loss\.task_weights\.cvr: model esmm has no such loss"):
        Network.loss_weights(ModelConfig(), LossConfig.model_validate({"task_weights": {"cvr": 0.2}}))


def test_weights_of_losses_are_the_model_s_unless_told() -> None:
    network = _network("escm2_dr")
    assert network.loss_weights(network.config, LossConfig()) == [1.0, 1.0, 0.1, 0.1]
    told = LossConfig.model_validate({"task_weights": {"ctcvr": 3.0, "auxiliary": 0.5}})
    assert network.loss_weights(network.config, told) == [1.0, 3.0, 0.1, 0.5]


@pytest.mark.parametrize("name", MODELS_WITH["cvr_towers"])
def test_the_cvr_tower_can_have_widths_of_its_own(name: str) -> None:
    network = _network(name, cvr_towers=[WIDTH, 5, 2])
    logits = network(*_input(network.TABLES))
    assert {len(logit) for logit in logits} == {IMPRESSIONS}
    shapes = {key: list(value.shape) for key, value in network.named_parameters() if key.endswith("weight")}
    ctr, cvr = ("tasks.0.towers.0", "tasks.1.towers.0") if network.TABLES > 1 else ("towers.0", "towers.1")
    assert [shapes[f"{ctr}.{level}.weight"] for level in (0, 2)] == [[LAST, WIDTH], [1, LAST]]
    assert [shapes[f"{cvr}.{level}.weight"] for level in (0, 2, 4)] == [[5, WIDTH], [2, 5], [1, 2]]


def test_towers_of_one_tower_are_its_own_chain() -> None:
    network = _network("esmm", cvr_towers=[WIDTH, 5, 2])
    assert isinstance(network, Esmm)
    pooled, index = _input()
    x = network.inputs(pooled, index, torch.float32)
    first = x.layer(network.context, network.item, 2, True)
    for logit, h, tower in zip(network(pooled, index), first, network.towers, strict=True):
        torch.testing.assert_close(logit, tower(h).squeeze(1))


def test_tables_apart_may_begin_differently_and_one_first_layer_may_not() -> None:
    assert _network("esmm_ns", cvr_towers=[4]).config.cvr_towers == [4]
    with pytest.raises(InputError, match="expected to begin with 6, found 4"):
        _network("esmm", cvr_towers=[4])
    with pytest.raises(ValidationError, match="expected one of the two"):
        _network("esmm", cvr_towers=[WIDTH, 5], batch_norm=True)
