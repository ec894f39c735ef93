"""Layer normalisation of an impression's input, folded into the first layer: Ba, Kiros and Hinton, 2016.

x is what is pooled of an impression, [context; item], n numbers with mean m and variance v. The layer sees

    (x - m) / s,   s = sqrt(v + eps),    so   W (x - m) / s + b = (W x - m W 1) / s + b

W x is the first layer as it is, with its context half computed once per context; what is left costs two
numbers per impression. Gain and shift, which Ba et al. train, W and b can take over.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from esmm.model.layers import FirstLayer

EPS = 1e-5


def first_layer(
    pooled: Tensor,
    context_index: Tensor,
    context_weight: Tensor,
    bias: Tensor,
    item_weight: Tensor,
    num_towers: int,
    dtype: torch.dtype,
    relu: bool,
) -> list[Tensor]:
    """As `FirstLayer`, of normalised inputs: T tensors [B, H] of type `dtype`."""
    mean, scale = moments(pooled, context_index, context_weight.shape[1], item_weight.shape[1])
    none = torch.zeros_like(bias, requires_grad=False)
    hidden = FirstLayer.apply(
        pooled, context_index, context_weight, none, item_weight, num_towers, dtype, False
    )
    sums = (context_weight.sum(1) + item_weight.sum(1)).chunk(num_towers)  # W 1
    outputs = []
    for x, ones, b in zip(hidden, sums, bias.chunk(num_towers), strict=True):
        shift = torch.addmm(b, (mean * scale).neg().unsqueeze(1), ones.unsqueeze(0))
        y = torch.addcmul(shift.to(dtype), x, scale.unsqueeze(1).to(dtype))
        outputs.append(F.relu_(y) if relu else y)
    return outputs


def moments(pooled: Tensor, context_index: Tensor, of_context: int, of_item: int) -> tuple[Tensor, Tensor]:
    """Mean and 1 / s of each impression's input, [B]. of_context, of_item: numbers of either part."""
    split = pooled.shape[0] - context_index.shape[0] * of_item // pooled.shape[1]
    parts = pooled[:split].reshape(-1, of_context), pooled[split:].reshape(-1, of_item)
    sums = [torch.stack([part.sum(1), part.square().sum(1)]) for part in parts]
    mean, square = (sums[0].index_select(1, context_index) + sums[1]) / (of_context + of_item)
    variance = (square - mean.square()).clamp(min=0)
    return mean, (variance + EPS).rsqrt()
