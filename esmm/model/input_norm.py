"""Layer normalisation of an impression's input, folded into the first layer: Ba, Kiros and Hinton, 2016.

x is what is pooled of an impression, [context; item], n numbers with mean m and variance v. The layer sees

    z = (x - m) r,   r = 1 / sqrt(v + eps),    so   W z + b = r W_c context - r m W_c 1 + W_i z_i + b

W_c context is computed once per context, as without it. Gain and shift, which Ba et al. train, W and b can
take over. With y = W z + b, its gradient g, and h = W' g, that of x is

    r (h - <h> - z <h z>)      <h> = g . W 1 / n,   <h z> = g . (y - b) / n

whose context half is summed over the impressions of a context before it is multiplied with W_c.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from esmm.model.layers import joined, relu_gradient, split, sums_of_contexts

EPS = 1e-5


def normalised(pooled: Tensor, context_index: Tensor, of_context: int, of_item: int) -> Tensor:
    """z [B, n] of each impression."""
    x = joined(pooled, context_index, of_context, of_item)
    return torch.nn.functional.layer_norm(x, x.shape[1:], eps=EPS)


class NormedFirstLayer(Function):
    """As `FirstLayer`, of normalised inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        pooled: Tensor,
        context_index: Tensor,
        context_weight: Tensor,
        bias: Tensor,
        item_weight: Tensor,
        parts: int,
        dtype: torch.dtype,
        relu: bool,
    ) -> tuple[Tensor, ...]:
        context, item = split(pooled, context_index, context_weight.shape[1], item_weight.shape[1])
        mean, scale = moments(context, item, context_index)
        # Two columns more make the product add -r m W_c 1 and b.
        inputs = item.new_empty(len(item), item.shape[1] + 2)
        torch.sub(item, mean.unsqueeze(1), out=inputs[:, :-2]).mul_(scale.unsqueeze(1))
        torch.mul(mean, scale, out=inputs[:, -2]).neg_()
        inputs[:, -1] = 1.0
        weight = torch.cat([item_weight, torch.stack([context_weight.sum(1), bias], 1)], 1).to(dtype)
        inputs, context = inputs.to(dtype), context.to(dtype)
        shared = context @ context_weight.to(dtype).t()
        output = shared.index_select(0, context_index).mul_(scale.unsqueeze(1).to(dtype))
        output.addmm_(inputs, weight.t())
        if relu:
            output.relu_()
        ctx.relu = relu
        ctx.dim = pooled.shape[1]
        ctx.save_for_backward(context, inputs, context_index, scale, context_weight.to(dtype), weight, output)
        return output.chunk(parts, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        context, inputs, context_index, scale, context_weight, weight, output = ctx.saved_tensors
        num_items = inputs.shape[1] - 2
        numbers = context.shape[1] + num_items
        width = gradients[0].shape[1]
        sums = context.new_empty(len(context), context_weight.shape[0])  # of r g
        to_weight, to_inputs = torch.empty_like(weight), torch.empty_like(inputs)
        along = scale.new_zeros(len(inputs))  # g . y
        for place, gradient in enumerate(gradients):
            part = slice(place * width, (place + 1) * width)
            if ctx.relu:
                gradient = relu_gradient(gradient, output[:, part])
            sums[:, part] = sums_of_contexts(gradient, context_index, len(context), scale)
            along += torch.linalg.vecdot(gradient, output[:, part])
            torch.mm(gradient.t(), inputs, out=to_weight[part])
            torch.addmm(to_inputs, gradient, weight[part], beta=float(place), out=to_inputs)
        to_item, to_ones, to_bias = to_inputs.float().split([num_items, 1, 1], 1)
        level = (to_item.sum(1) + to_ones.squeeze(1)) / numbers  # <h>
        tilt = (along.float() - to_bias.squeeze(1)) / numbers  # <h z>
        z = inputs[:, :-2].float()
        to_item = (to_item - level.unsqueeze(1)).addcmul_(z, tilt.unsqueeze(1), value=-1)
        to_item.mul_(scale.unsqueeze(1))
        # z of the context is r c + (-r m), so that r (<h> + z <h z>) is c times one number plus another.
        tilted = scale * tilt
        parts = torch.stack([scale * tilted, scale * level + tilted * inputs[:, -2].float()], 1)
        slope, shift = sums_of_contexts(parts, context_index, len(context)).unsqueeze(2).unbind(1)
        to_context = (sums @ context_weight).float().addcmul_(context.float(), slope, value=-1).sub_(shift)
        to_pooled = torch.cat([to_context.view(-1), to_item.reshape(-1)]).view(-1, ctx.dim)
        to_weight = to_weight.float()
        to_context_weight = (sums.t() @ context).float().add_(to_weight[:, -2:-1])
        return to_pooled, None, to_context_weight, to_weight[:, -1], to_weight[:, :-2], None, None, None


def moments(context: Tensor, item: Tensor, context_index: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and r of each impression's input, float32 [B]. context [U, n_c], item [B, n_i]."""
    numbers = context.shape[1] + item.shape[1]
    of_context, of_item = (torch.stack([x.sum(1), x.square().sum(1)]) for x in (context, item))
    mean, square = (of_context.index_select(1, context_index) + of_item) / numbers
    return mean, ((square - mean.square()).clamp(min=0) + EPS).rsqrt()
