"""What the first layers of a model read of an impression: its pooled fields, as the configuration has them.

Without cross layers the half that a context's impressions share is multiplied once per context. Cross layers
mix both halves, so what comes after the first of them is computed per impression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from esmm.model.cross import Cross
from esmm.model.input_norm import NormedFirstLayer, normalised
from esmm.model.layers import Dense, FirstLayer, joined
from esmm.model_config import ModelConfig
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
    normed: bool

    def layer(self, context: nn.Linear, item: nn.Linear, parts: int, relu: bool) -> Sequence[Tensor]:
        function = NormedFirstLayer if self.normed else FirstLayer
        parameters = (context.weight, context.bias, item.weight)
        outputs: tuple[Tensor, ...] = function.apply(
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
        self.normed = config.input_norm
        layers = config.cross_layers
        self.cross = Cross(of_context, of_item, layers) if layers else None

    def forward(self, pooled: Tensor, context_index: Tensor, dtype: torch.dtype) -> Input:
        """pooled: [U*F_u + B*F_i, D]; context_index: int64 [B], ascending. dtype: of the products."""
        shared = SharedInput(pooled, context_index, dtype, self.normed)
        if self.cross is None:
            return shared
        (product,) = shared.layer(self.cross.context, self.cross.item, 1, False)
        whole = normalised if self.normed else joined
        return WholeInput(self.cross(whole(pooled, context_index, *self.sizes).to(dtype), product))


def sizes(config: ModelConfig, schema: Schema) -> tuple[int, int]:
    """Numbers of the context's half of an impression's input, and of its own."""
    of_context, of_item = fields(schema)
    return of_context * config.embedding_dim, of_item * config.embedding_dim


def fields(schema: Schema) -> tuple[int, int]:
    """Fields of a context and of an impression itself, numbers among them."""
    of_context = len(schema.user_fields) + len(schema.user_numbers)
    return of_context, len(schema.impression_fields) + len(schema.impression_numbers)
