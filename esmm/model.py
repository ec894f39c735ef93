"""ESMM's network: one shared embedding, two towers, and a first layer whose context half is paid once."""

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esmm.batch import Bags, Batch
from esmm.config import ModelConfig
from esmm.embedding import Lookup, ShardedEmbedding
from esmm.grouping import PoolBags
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

    def forward(self, context: Tensor, item: Tensor, context_index: Tensor) -> tuple[Tensor, Tensor]:
        """context [U, 13*D], item [B, 10*D], context_index int64 [B] -> logits of CTR and CVR, each [B]."""
        shared = self.context(context).index_select(0, context_index)
        hidden = F.relu_(shared.addmm_(item, self.item.weight.t()))
        ctr, cvr = (tower(part) for tower, part in zip(self.towers, hidden.chunk(TASKS, 1), strict=True))
        return ctr.squeeze(1), cvr.squeeze(1)


def _tower(widths: list[int]) -> nn.Sequential:
    """[B, h1] -> [B, 1]: the layers after the first."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


class Esmm:
    """The network and the embedding it reads: batches in, logits out."""

    def __init__(self, network: EsmmNetwork, embedding: ShardedEmbedding) -> None:
        self.network, self.embedding = network, embedding

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Lookup]:
        """Logits of CTR and CVR, each [B], and the lookup whose vectors they depend on."""
        bags = _join(batch.user, batch.impression)
        lookup = self.embedding.lookup(bags.ids)
        pooled = PoolBags.apply(lookup.vectors, lookup.groups, bags.weights, bags.offsets)
        user, impression = pooled.split(
            [batch.user.offsets.shape[0] - 1, batch.impression.offsets.shape[0] - 1]
        )
        ctr, cvr = self.network(
            _by_owner(user, len(USER_FIELDS), batch.num_contexts),
            _by_owner(impression, len(IMPRESSION_FIELDS), batch.num_impressions),
            batch.context_index,
        )
        return ctr, cvr, lookup


def _join(first: Bags, second: Bags) -> Bags:
    """The bags of both, end to end, so that they are looked up and pooled together."""
    offsets = torch.cat([first.offsets[:-1], second.offsets + first.ids.shape[0]])
    return Bags(torch.cat([first.ids, second.ids]), torch.cat([first.weights, second.weights]), offsets)


def _by_owner(pooled: Tensor, num_fields: int, num_owners: int) -> Tensor:
    """Field-major bags [F*N, D] -> [N, F*D]."""
    fields = pooled.view(num_fields, num_owners, pooled.shape[1])
    return fields.transpose(0, 1).reshape(num_owners, num_fields * pooled.shape[1])
