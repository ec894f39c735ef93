"""A latent world's true vectors as features: what a model could do that had not to find them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esmm.batch import Batch
from esmm.embedding.bags import Bags, field_offsets
from esmm.embedding.sharded_table import Lookup, ShardedEmbedding
from esmm.model.apart import Apart
from esmm.model.model import Model
from esmm.model.models import network_class
from esmm.model_config import ModelConfig
from esmm.workers.world import World
from jobs.demo_logs.latent import build_latent_world
from jobs.demo_logs.world import FIELDS, PlantedWorld
from schemas import hashing
from schemas.numbers import Number
from schemas.schema import Schema

USER, ITEM = "101", "205"


@dataclass(frozen=True)
class TrueVectors:
    """By row of the embedding: user [rows of users, K]; item [rows of items, 2 K], of clicks and conversions.

    places: of the user's field among the contexts', of the item's among the impressions'. first: their rows.
    """

    user: Tensor
    item: Tensor
    places: tuple[int, int]
    first: tuple[int, int]

    @classmethod
    def of(cls, seed: int, contexts: int, schema: Schema, hash_seed: int) -> Self:
        """Those of the world that `jobs.make_demo_logs --world latent` draws with the same options."""
        world = build_latent_world(seed, contexts)
        names = [[f.name for f in side] for side in (schema.user_fields, schema.impression_fields)]
        offsets = field_offsets(schema.buckets)
        vectors = world.user_latent, world.item_latent.reshape(world.num_items, -1)
        user, item = (
            _by_bucket(world, name, found, schema.buckets, hash_seed)
            for name, found in zip((USER, ITEM), vectors, strict=True)
        )
        places = names[0].index(USER), names[1].index(ITEM)
        return cls(user, item, places, (offsets[USER], offsets[ITEM]))

    def beside(self, batch: Batch) -> Batch:
        """The batch with the vectors in the place of numeric fields; zeros where an id is missing."""
        user = _chosen(batch.user, batch.num_user_fields, self.places[0], self.first[0], self.user)
        item = _chosen(
            batch.impression, batch.num_impression_fields, self.places[1], self.first[1], self.item
        )
        return replace(batch, user_numbers=user, impression_numbers=item)


def _by_bucket(
    world: PlantedWorld, name: str, vectors: np.ndarray, buckets: Mapping[str, int], hash_seed: int
) -> Tensor:
    """Two ids of one bucket: the last one's vector."""
    place = FIELDS.index(name)
    found = np.zeros((buckets[name], vectors.shape[1]), np.float32)
    for number, vector in enumerate(vectors):
        raw = int(world.id_start[place] + world.id_stride * number)
        found[hashing.bucket(name, raw, buckets[name], hash_seed)] = vector
    return torch.from_numpy(found)


def _chosen(bags: Bags, fields: int, place: int, first: int, vectors: Tensor) -> Tensor:
    begin, end = bags.offsets[:-1][place::fields].long(), bags.offsets[1:][place::fields].long()
    ids = bags.ids[begin.clamp(max=max(len(bags.ids) - 1, 0))].long() - first
    return vectors[ids.clamp(0, len(vectors) - 1)] * (end > begin).unsqueeze(1)


class Padded(nn.Module):
    """Vectors [R, K] as one more field, [R, 1, dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.dim - x.shape[1])).unsqueeze(1)


class ModelWithVectors(Model):
    """Networks apart that read the vectors as one more field of each side."""

    def __init__(self, config: ModelConfig, schema: Schema, world: World, vectors: TrueVectors) -> None:
        numbers = (Number("true_user", "user"), Number("true_item", "item"))
        network = network_class(config.name)(config, replace(schema, numbers=numbers), world)
        assert isinstance(network, Apart)
        for task in network.networks():
            assert task.numbers is not None
            for side in ("user", "impression"):
                task.numbers.sides[side] = Padded(config.embedding_dim)
        super().__init__(network, ShardedEmbedding(schema.num_rows, network.row_width(config), world))
        self.vectors = vectors

    def forward(
        self, batch: Batch, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
    ) -> tuple[tuple[Tensor, ...], Lookup]:
        return super().forward(self.vectors.beside(batch), dtype, generator)
