"""ESMM's network: one shared embedding, two towers, and a first layer whose context half is paid once."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esmm.batch import Batch
from esmm.config import ModelConfig
from esmm.embedding.sharded_table import Lookup, ShardedEmbedding
from esmm.model.batch_norm import BatchNorm
from esmm.model.dropout import drop_out
from esmm.model.layers import Dense, FirstLayer
from esmm.workers.world import World
from schemas.fields import IMPRESSION_FIELDS, USER_FIELDS

TASKS = 2  # the CTR tower and the CVR tower


class EsmmNetwork(nn.Module):
    """Pooled fields -> two logits per impression.

    Both towers' first layers are one matrix, W [context; item] = W_c context + W_i item. A context's term
    is computed once and handed to its impressions.
    """

    def __init__(self, config: ModelConfig, world: World) -> None:
        super().__init__()
        dim, first = config.embedding_dim, config.towers[0]
        self.num_hidden, self.dropout = len(config.towers), config.dropout
        self.context = nn.Linear(len(USER_FIELDS) * dim, TASKS * first)
        self.item = nn.Linear(len(IMPRESSION_FIELDS) * dim, TASKS * first, bias=False)
        self.towers = nn.ModuleList(_tower(config) for _ in range(TASKS))
        self.context.bias.requires_grad_(not config.batch_norm)
        normed = config.towers if config.batch_norm else []
        self.norms = nn.ModuleList(BatchNorm(TASKS, h, world, f"norm{i}") for i, h in enumerate(normed))

    @torch.no_grad()
    def initialise(self) -> None:
        """torch's default for linear layers, from its global generator; the two halves count as one.

        Drawn on the CPU wherever the parameters lie: a GPU's generator gives other numbers.
        """
        fan_in = self.context.in_features + self.item.in_features
        for parameter in (*self.context.parameters(), *self.item.parameters()):
            parameter.copy_(torch.empty(parameter.shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))
        for module in self.towers.modules():
            if isinstance(module, nn.Linear):
                fresh = nn.Linear(module.in_features, module.out_features)
                module.weight.copy_(fresh.weight)
                module.bias.copy_(fresh.bias)

    def start_at(self, p_ctr: float, p_cvr: float) -> None:
        """Let the untrained towers predict about these rates.

        From 0.5, all impressions without a click would push pCVR far below its rate first, and the few
        conversions of an epoch are too few to bring it back.
        """
        for tower, rate in zip(self.towers, (p_ctr, p_cvr), strict=True):
            *_, last = cast(nn.ModuleList, tower)
            nn.init.constant_(cast(nn.Linear, last).bias, math.log(rate / (1 - rate)))

    def forward(
        self,
        pooled: Tensor,
        context_index: Tensor,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits of CTR and CVR, each float32 [B].

        pooled: [U*13 + B*10, D], the fields of each context, then those of each impression.
        context_index: int64 [B], ascending. dtype: of the matrix products. generator: of dropout, if wanted.
        """
        parameters = (self.context.weight, self.context.bias, self.item.weight)
        hidden = FirstLayer.apply(pooled, context_index, *parameters, dtype, not self.norms)
        towers = cast(list[nn.Sequential], self.towers)
        for level in range(self.num_hidden):
            hidden = self._regularised(level, hidden, generator)
            hidden = [tower[2 * level](x) for tower, x in zip(towers, hidden, strict=True)]
        ctr, cvr = hidden
        return ctr.float().squeeze(1), cvr.float().squeeze(1)

    def _regularised(
        self, level: int, hidden: Sequence[Tensor], generator: torch.Generator | None
    ) -> Sequence[Tensor]:
        """What becomes of both towers' hidden layer `level`, [B, H] each, before the next layer."""
        if self.norms:
            hidden = [F.relu_(x) for x in self.norms[level](hidden)]
        if self.dropout and generator is not None:
            hidden = [drop_out(x, self.dropout, generator) for x in hidden]
        return hidden


class DenseLayer(nn.Linear):
    """A linear layer, with or without ReLU, in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int, relu: bool) -> None:
        super().__init__(inputs, outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Dense.apply(x, self.weight, self.bias, self.relu))


def _tower(config: ModelConfig) -> nn.Sequential:
    """[B, h1] -> [B, 1]: the layers after the first, at even places: a ReLU once stood between them.

    Where batch norm comes between a layer and its ReLU, the layer has no ReLU, and its bias, which the norm
    takes away again, is not trained.
    """
    layers: list[nn.Module] = []
    for width, following in pairwise(config.towers):
        layer = DenseLayer(width, following, relu=not config.batch_norm)
        layer.bias.requires_grad_(not config.batch_norm)
        layers += [layer, nn.Identity()]
    return nn.Sequential(*layers, DenseLayer(config.towers[-1], 1, relu=False))


class Esmm:
    """The network and the embedding it reads: batches in, logits out."""

    def __init__(self, network: EsmmNetwork, embedding: ShardedEmbedding) -> None:
        self.network, self.embedding = network, embedding

    def forward(
        self,
        batch: Batch,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Lookup]:
        """Logits of CTR and CVR, each [B], and the lookup; its pooled vectors get the gradient."""
        lookup = self.embedding.lookup(batch.asked())
        ctr, cvr = self.network(lookup.pooled.requires_grad_(), batch.context_index, dtype, generator)
        return ctr, cvr, lookup
