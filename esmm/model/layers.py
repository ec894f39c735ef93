"""The network's layers as fused functions: nothing is copied that the arithmetic does not ask for.

Inputs decide the precision: with bfloat16 inputs the matrix products are bfloat16, and with them the values
of the gradients that they give; parameters stay float32, and gradients are widened to it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def relu_gradient(gradient: Tensor, output: Tensor) -> Tensor:
    """In place: the layer after it has made this gradient for nobody else."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)


class Dense(Function):
    """x [B, I], weight [O, I], bias [O] -> relu(x W' + b), or without relu, [B, O] in x's precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        weight = weight.to(x.dtype)
        output = torch.addmm(bias.to(x.dtype), x, weight.t())
        if relu:
            output.relu_()
        ctx.save_for_backward(x, weight, output if relu else None)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, output = ctx.saved_tensors
        if output is not None:
            gradient = relu_gradient(gradient, output)
        to_weight = (gradient.t() @ x).float()
        return gradient @ weight, to_weight, gradient.sum(0, dtype=torch.float32), None


class FirstLayer(Function):
    """The first layers of T towers, their context half computed once per context.

    W [context; item] = W_c context + W_i item. pooled [U*C + B*I, D]: C fields of each of U contexts, then
    I fields of each of B impressions. context_index int64 [B], ascending. context_weight [T*H, C*D],
    bias [T*H], item_weight [T*H, I*D]. Returns T tensors [B, H] of type `dtype`, with or without relu.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pooled: Tensor,
        context_index: Tensor,
        context_weight: Tensor,
        bias: Tensor,
        item_weight: Tensor,
        num_towers: int,
        dtype: torch.dtype,
        relu: bool,
    ) -> tuple[Tensor, ...]:
        ctx.dim = pooled.shape[1]
        halves = split(pooled, context_index, context_weight.shape[1], item_weight.shape[1])
        context, item = (half.to(dtype) for half in halves)
        weights = context_weight.to(dtype), item_weight.to(dtype)
        shared = torch.addmm(bias.to(dtype), context, weights[0].t())
        hidden = shared.index_select(0, context_index).addmm_(item, weights[1].t())
        if relu:
            hidden.relu_()
        ctx.save_for_backward(context, item, context_index, *weights, hidden if relu else None)
        return hidden.chunk(num_towers, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        context, item, context_index, context_weight, item_weight, hidden = ctx.saved_tensors
        width = gradients[0].shape[1]
        sums = context.new_empty(context.shape[0], len(gradients) * width)
        to_item_weight = torch.empty_like(item_weight)
        to_item = torch.empty_like(item)
        for tower, gradient in enumerate(gradients):
            part = slice(tower * width, (tower + 1) * width)
            if hidden is not None:
                gradient = relu_gradient(gradient, hidden[:, part])
            sums[:, part] = sums_of_contexts(gradient, context_index, context.shape[0])
            torch.mm(gradient.t(), item, out=to_item_weight[part])
            torch.addmm(to_item, gradient, item_weight[part], beta=float(tower), out=to_item)
        to_pooled = torch.cat([(sums @ context_weight).view(-1), to_item.view(-1)]).float().view(-1, ctx.dim)
        to_weight = (sums.t() @ context).float()
        return (
            to_pooled,
            None,
            to_weight,
            sums.sum(0, dtype=torch.float32),
            to_item_weight.float(),
            None,
            None,
            None,
        )


def split(pooled: Tensor, context_index: Tensor, of_context: int, of_item: int) -> tuple[Tensor, Tensor]:
    """The halves of pooled fields: [U, of_context] and [B, of_item], both parts of the same memory."""
    num_impressions = len(context_index)
    first = len(pooled) - num_impressions * of_item // pooled.shape[1]
    return pooled[:first].view(-1, of_context), pooled[first:].view(num_impressions, of_item)


def joined(pooled: Tensor, context_index: Tensor, of_context: int, of_item: int) -> Tensor:
    """All that is pooled of each impression, [B, of_context + of_item]."""
    context, item = split(pooled, context_index, of_context, of_item)
    return torch.cat([context.index_select(0, context_index), item], 1)


def sums_of_contexts(
    rows: Tensor, context_index: Tensor, num_contexts: int, weight: Tensor | None = None
) -> Tensor:
    """Rows [B, H] summed by ascending context_index [B] -> [U, H]; accumulated in float32. weight: [B]."""
    num_rows = rows.shape[0]
    if num_rows == 0:
        return rows.new_zeros(num_contexts, rows.shape[1])
    contexts = torch.arange(num_contexts + 1, device=rows.device)
    starts = torch.searchsorted(context_index, contexts)
    order = torch.arange(num_rows, device=rows.device)
    weights = None if weight is None else weight.to(rows.dtype)
    return F.embedding_bag(
        order, rows, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
