"""Pooling and its gradient against torch's own autograd of the obvious expressions."""

import pytest
import torch

from esmm.grouping import PoolBags, group_equal


@pytest.mark.parametrize("size", [0, 1, 50])
def test_groups_of_equal_keys(size: int) -> None:
    keys = torch.randint(0, 20, (size,), generator=torch.Generator().manual_seed(size))
    groups = group_equal(keys)
    assert groups.unique.tolist() == sorted(set(keys.tolist()))
    torch.testing.assert_close(groups.unique[groups.inverse], keys)
    for number, key in enumerate(groups.unique.tolist()):
        members = groups.order[groups.starts[number] : groups.starts[number + 1]]
        assert members.tolist() == [position for position, other in enumerate(keys.tolist()) if other == key]


@pytest.mark.parametrize("lengths", [[2, 0, 5, 1, 0], [0, 0], []])
def test_pooling_and_its_gradient(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 4, (sum(lengths),), generator=generator)
    weights = torch.rand(len(ids), generator=generator, dtype=torch.float64)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    groups = group_equal(ids)
    vectors = torch.randn(len(groups.unique), 3, generator=generator, dtype=torch.float64, requires_grad=True)
    pooled = PoolBags.apply(vectors, groups, weights, offsets)
    one_by_one = [
        (vectors[groups.inverse[low:high]] * weights[low:high, None]).sum(0)
        for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    expected = torch.stack(one_by_one) if lengths else torch.zeros(0, 3, dtype=torch.float64)
    torch.testing.assert_close(pooled, expected)
    upstream = torch.randn(pooled.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(pooled, vectors, upstream)
    bag_of_token = torch.repeat_interleave(torch.arange(len(lengths)), offsets.diff())
    by_token = upstream[bag_of_token] * weights[:, None]
    torch.testing.assert_close(gradient, torch.zeros_like(gradient).index_add(0, groups.inverse, by_token))
