"""What the first layers of a model read of an impression: its pooled fields, as the configuration has them.

Without cross layers the half that a context's impressions share is multiplied once per context. Cross layers
mix both halves, so what comes after the first of them is computed per impression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esmm.config import ModelConfig
from esmm.model.cross import Cross
from esmm.model.layers import Dense, FirstLayer, joined
from schemas.schema import Schema


class Input(Protocol):
    """An impression's input, ready for linear layers."""

    def layer(self, context: nn.Linear, item: nn.Linear, parts: int, relu: bool) -> Sequence[Tensor]:
        """W_c context + W_i item + b for each of B impressions, in `parts` equal parts [B, H]."""


@dataclass(frozen=True)
class SharedInput:
    """pooled [U*F_u + B*F_i, D], the fields of each context, then those of each impression."""

    pooled: Tensor
    context_index: Tensor
    dtype: torch.dtype

    def layer(self, context: nn.Linear, item: nn.Linear, parts: int, relu: bool) -> Sequence[Tensor]:
        parameters = (context.weight, context.bias, item.weight)
        outputs: tuple[Tensor, ...] = FirstLayer.apply(
            self.pooled, self.context_index, *parameters, parts, self.dtype, relu
        )
        return outputs


@dataclass(frozen=True)
class WholeInput:
    """x [B, n]: what is left to do per impression."""

    x: Tensor

    def layer(self, context: nn.Linear, item: nn.Linear, parts: int, relu: bool) -> Sequence[Tensor]:
        weight = torch.cat([context.weight, item.weight], 1)
        return Dense.apply(self.x, weight, context.bias, relu).chunk(parts, 1)


class Inputs(nn.Module):
    """Makes the input of pooled fields. of_context, of_item: numbers of either half, see `sizes`."""

    def __init__(self, config: ModelConfig, of_context: int, of_item: int) -> None:
        super().__init__()
        self.sizes = of_context, of_item
        self.field_norm = config.field_norm
        layers = config.cross_layers
        self.cross = Cross(of_context, of_item, layers) if layers else None

    def forward(self, pooled: Tensor, context_index: Tensor, dtype: torch.dtype) -> Input:
        """pooled: [U*F_u + B*F_i, D]; context_index: int64 [B], ascending. dtype: of the products."""
        if self.field_norm:
            pooled = normalised(pooled)
        shared = SharedInput(pooled, context_index, dtype)
        if self.cross is None:
            return shared
        (product,) = shared.layer(self.cross.context, self.cross.item, 1, False)
        whole = joined(pooled, context_index, *self.sizes).to(dtype)
        return WholeInput(self.cross(whole, product))


def normalised(pooled: Tensor) -> Tensor:
    """Each field's vector [D] with mean 0 and variance 1: Ba, Kiros and Hinton, 2016, without gain and shift.

    A list is the mean of its ids' vectors, which shrinks with its length, and rows start small: without it a
    history of a hundred ids says a tenth of what a single id says. What is missing stays 0.
    """
    return F.layer_norm(pooled, pooled.shape[1:], eps=EPS)


EPS = 1e-6  # about the variance of the mean of a thousand rows as they start


def sizes(config: ModelConfig, schema: Schema) -> tuple[int, int]:
    """Numbers of the context's half of an impression's input, and of its own."""
    of_context = len(schema.user_fields) + len(schema.user_numbers)
    of_item = len(schema.impression_fields) + len(schema.impression_numbers)
    return of_context * config.embedding_dim, of_item * config.embedding_dim
