"""Vectors of numeric fields against plain numpy in float64, and their gradients against differences."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from esmm.model.numbers import NumberVectors, QuantileVectors, TanhVectors, WithNumbers
from schemas.numbers import Number, Statistics
from tests.fixtures.shop import SHOP_OF_NUMBERS

DIM = 3
NUMBERS = (
    Number("plain", "item"),
    Number("four", "item", quantiles=4),
    Number("clipped", "item", clip=(-1.0, 2.0)),
    Number("amount", "item", log1p=True),
    Number("two", "item", quantiles=2, log1p=True, clip=(0.0, 10.0)),
)
NAN = float("nan")


def statistics(mean: float = 0.0, std: float = 1.0, bounds: tuple[float, ...] = ()) -> Statistics:
    return Statistics(values=9, missing=0, mean=mean, std=std, min=0, max=0, bounds=list(bounds))


FOUND = {
    "plain": statistics(1.0, 2.0),
    "four": statistics(bounds=(-1.0, 0.0, 1.0)),
    "clipped": statistics(0.5, 0.25),
    "amount": statistics(2.0, 0.0),  # all the same: no deviation
    "two": statistics(bounds=(math.log(3.0),)),
}


def made_vectors() -> NumberVectors:
    torch.manual_seed(1)
    made = NumberVectors(NUMBERS, DIM)
    for part in made.parts.values():
        part.initialise(0.5)
        part.set_statistics(FOUND)
    with torch.no_grad():
        made.parts["smooth"].missing.uniform_(-1, 1)
    return made


@pytest.fixture
def vectors() -> NumberVectors:
    return made_vectors()


def plain(vectors: NumberVectors, row: list[float]) -> np.ndarray:
    smooth, parted = (dict(vectors.parts[kind].named_parameters()) for kind in ("smooth", "parted"))
    weight, bias, missing = (smooth[name].double().detach().numpy() for name in ("weight", "bias", "missing"))
    table = parted["table"].double().detach().numpy()
    found = []
    for place, (index, mean, std) in enumerate([(0, 1.0, 2.0), (2, 0.5, 0.25), (3, 2.0, 1.0)]):
        z = (bent(row[index], NUMBERS[index]) - mean) / std
        found.append(missing[place] if math.isnan(z) else np.tanh(z * weight[place] + bias[place]))
    for first, index, bounds in ((0, 1, [-1.0, 0.0, 1.0]), (5, 4, [float(np.float32(math.log(3.0)))])):
        z = float(np.float32(bent(row[index], NUMBERS[index])))
        found.append(table[first if math.isnan(z) else first + 1 + sum(z >= bound for bound in bounds)])
    return np.array(found)


def bent(x: float, number: Number) -> float:
    if math.isnan(x):
        return x
    y = min(max(x, number.clip[0]), number.clip[1]) if number.clip else x
    return math.copysign(math.log1p(abs(y)), y) if number.log1p else y


VALUES = st.just(NAN) | st.floats(-1e6, 1e6, width=32).filter(lambda x: abs(x - 2) > 1e-3)


@settings(deadline=None)
@given(st.lists(st.lists(VALUES, min_size=5, max_size=5), max_size=6))
def test_every_vector_is_what_the_formula_says(rows: list[list[float]]) -> None:
    made = made_vectors()
    found = made(torch.tensor(rows).reshape(-1, 5))
    assert found.shape == (len(rows), 5, DIM)
    for one, row in zip(found.detach().numpy(), rows, strict=True):
        np.testing.assert_allclose(one, plain(made, row), rtol=1e-4, atol=1e-5)


def test_missing_values_leave_the_other_gradients_finite(vectors: NumberVectors) -> None:
    vectors(torch.tensor([[NAN] * 5, [1.0, 2.0, NAN, 4.0, 5.0]])).square().sum().backward()
    for name, parameter in vectors.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    missing = vectors.parts["smooth"].missing.grad
    assert missing[1].abs().sum() > 0 and missing[0].abs().sum() > 0


def test_numbers_stand_behind_the_fields_of_their_side() -> None:
    schema = replace(SHOP_OF_NUMBERS, numbers=SHOP_OF_NUMBERS.numbers[:2])  # one of the user, one of the item
    made = WithNumbers(schema, DIM)
    made.initialise(0.5)
    pooled = torch.randn(2 * 2 + 3 * 2, DIM, requires_grad=True)
    user, impression = torch.tensor([[1.0], [NAN]]), torch.tensor([[5.0], [NAN], [7.0]])
    found = made(pooled, user, impression)
    assert found.shape == (2 * 3 + 3 * 3, DIM)
    of_contexts, of_impressions = found[:6].view(2, 3, DIM), found[6:].view(3, 3, DIM)
    assert torch.equal(of_contexts[:, :2].reshape(-1, DIM), pooled[:4])
    assert torch.equal(of_impressions[:, :2].reshape(-1, DIM), pooled[4:])
    assert torch.equal(of_contexts[:, 2], made.sides["user"](user).squeeze(1))
    assert torch.equal(of_impressions[:, 2], made.sides["impression"](impression).squeeze(1))
    found.sum().backward()
    assert torch.equal(pooled.grad, torch.ones_like(pooled))


def test_no_rows(vectors: NumberVectors) -> None:
    assert vectors(torch.empty(0, 5)).shape == (0, 5, DIM)
    made = WithNumbers(SHOP_OF_NUMBERS, DIM)
    assert made(torch.empty(0, DIM), torch.empty(0, 1), torch.empty(0, 2)).shape == (0, DIM)


@pytest.mark.parametrize("kind", [TanhVectors, QuantileVectors])
def test_start_values_come_from_the_seed(kind: type[TanhVectors] | type[QuantileVectors]) -> None:
    def drawn() -> dict[str, Tensor]:
        torch.manual_seed(4)
        made = kind([Number("n", "user", quantiles=3)], DIM)
        made.initialise(0.1)
        return made.state_dict()

    first, second = drawn(), drawn()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(bool(tensor.abs().sum() > 0) for tensor in first.values())
