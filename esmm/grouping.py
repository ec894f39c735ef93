"""Sparse pooling as two gathers: equal keys are grouped by one sort, and the groups serve both ways.

`F.embedding_bag` has a fast forward pass (a weighted sum of gathered rows). Its backward pass on a CPU is
many times slower than the same kernel run on the transposed problem: for each row, the weighted sum of
the gradients of the bags it went into. So both directions here are that one kernel.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@dataclass
class Groups:
    """T keys in N groups of equal ones.

    unique: [N], ascending. inverse: [T], which group a key is in. order: [T], positions of the keys,
    group after group. starts: [N + 1], group n is order[starts[n] : starts[n + 1]].
    """

    unique: Tensor
    inverse: Tensor
    order: Tensor
    starts: Tensor


def group_equal(keys: Tensor) -> Groups:
    """Group int64 keys [T] by value."""
    ascending, order = torch.sort(keys, stable=True)
    first = torch.ones_like(ascending, dtype=torch.bool)
    torch.ne(ascending[1:], ascending[:-1], out=first[1:])
    starts = first.nonzero().squeeze(1)
    inverse = torch.empty_like(order)
    inverse[order] = first.cumsum(0) - 1
    unique = ascending.index_select(0, starts)
    return Groups(unique, inverse, order, torch.cat([starts, starts.new_tensor([keys.shape[0]])]))


def sum_bags(rows: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted sums of gathered rows, without gradient.

    rows [N, D], ids [T] into rows, offsets [K + 1] into ids, weights [T] -> [K, D].
    """
    if ids.shape[0] == 0:
        return rows.new_zeros(offsets.shape[0] - 1, rows.shape[1])
    return F.embedding_bag(
        ids, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


class PoolBags(Function):
    """vectors [N, D] -> [K, D]: bag k is the weighted sum of the vectors of its T_k tokens."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, groups: Groups, weights: Tensor, offsets: Tensor) -> Tensor:
        ctx.groups, ctx.weights, ctx.offsets = groups, weights, offsets
        return sum_bags(vectors, groups.inverse, offsets, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        num_bags, order = ctx.offsets.shape[0] - 1, ctx.groups.order
        bags = torch.arange(num_bags, device=order.device)
        bag_of_token = torch.repeat_interleave(bags, ctx.offsets.diff(), output_size=order.shape[0])
        ids, weights = bag_of_token.index_select(0, order), ctx.weights.index_select(0, order)
        return sum_bags(gradient.contiguous(), ids, ctx.groups.starts, weights), None, None, None
