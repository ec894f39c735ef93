"""ESMM's network: one shared embedding, two towers, and a first layer whose context half is paid once."""

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from esmm.batch import Batch
from esmm.config import ModelConfig
from esmm.embedding import Lookup, ShardedEmbedding
from esmm.layers import Dense, FirstLayer
from schemas.fields import IMPRESSION_FIELDS, USER_FIELDS

TASKS = 2  # the CTR tower and the CVR tower


class EsmmNetwork(nn.Module):
    """Pooled fields -> two logits per impression.

    Both towers' first layers are one matrix, W [context; item] = W_c context + W_i item. A context's term
    is computed once and handed to its impressions.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, first = config.embedding_dim, config.towers[0]
        self.context = nn.Linear(len(USER_FIELDS) * dim, TASKS * first)
        self.item = nn.Linear(len(IMPRESSION_FIELDS) * dim, TASKS * first, bias=False)
        self.towers = nn.ModuleList(_tower(config.towers) for _ in range(TASKS))

    def initialise(self) -> None:
        """torch's default for linear layers, from its global generator; the two halves count as one."""
        fan_in = self.context.in_features + self.item.in_features
        for parameter in (*self.context.parameters(), *self.item.parameters()):
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5)
        for module in self.towers.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def start_at(self, p_ctr: float, p_cvr: float) -> None:
        """Let the untrained towers predict about these rates.

        From 0.5, all impressions without a click would push pCVR far below its rate first, and the few
        conversions of an epoch are too few to bring it back.
        """
        for tower, rate in zip(self.towers, (p_ctr, p_cvr), strict=True):
            *_, last = cast(nn.ModuleList, tower)
            nn.init.constant_(cast(nn.Linear, last).bias, math.log(rate / (1 - rate)))

    def forward(
        self, pooled: Tensor, context_index: Tensor, precision: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Logits of CTR and CVR, each float32 [B].

        pooled: [U*13 + B*10, D], the fields of each context, then those of each impression.
        context_index: int64 [B], ascending. precision: of the matrix products.
        """
        parameters = (self.context.weight, self.context.bias, self.item.weight)
        hidden = FirstLayer.apply(pooled, context_index, *parameters, precision, True)
        ctr, cvr = (tower(part) for tower, part in zip(self.towers, hidden, strict=True))
        return ctr.float().squeeze(1), cvr.float().squeeze(1)


class DenseLayer(nn.Linear):
    """A linear layer, with or without ReLU, in the precision of its input."""

    def __init__(self, inputs: int, outputs: int, relu: bool) -> None:
        super().__init__(inputs, outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Dense.apply(x, self.weight, self.bias, self.relu))


def _tower(widths: list[int]) -> nn.Sequential:
    """[B, h1] -> [B, 1]: the layers after the first."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [DenseLayer(width, following, relu=True), nn.Identity()]
    return nn.Sequential(*layers, DenseLayer(widths[-1], 1, relu=False))


class Esmm:
    """The network and the embedding it reads: batches in, logits out."""

    def __init__(self, network: EsmmNetwork, embedding: ShardedEmbedding) -> None:
        self.network, self.embedding = network, embedding

    def forward(self, batch: Batch, precision: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Lookup]:
        """Logits of CTR and CVR, each [B], and the lookup; its pooled vectors get the gradient."""
        lookup = self.embedding.lookup(batch.asked())
        ctr, cvr = self.network(lookup.pooled.requires_grad_(), batch.context_index, precision)
        return ctr, cvr, lookup
