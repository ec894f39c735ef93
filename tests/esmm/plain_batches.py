"""Random batches as plain Python lists, and the same as `Batch`: lists are easy to deal out and to check."""

import random
from dataclasses import dataclass

import torch

from esmm.batch import Batch
from esmm.embedding.bags import Bags
from schemas.fields import IMPRESSION_FIELDS, USER_FIELDS

Bag = list[tuple[int, float]]  # (row of the table, weight)


@dataclass
class Impression:
    context: int  # position in the list of contexts
    click: int
    conversion: int
    fields: list[Bag]


@dataclass
class PlainBatch:
    contexts: list[list[Bag]]
    impressions: list[Impression]

    def part(self, number: int, parts: int) -> "PlainBatch":
        """One of `parts` equal shares of the impressions, with the contexts that it needs."""
        size = -(-len(self.impressions) // parts)
        mine = self.impressions[number * size : (number + 1) * size]
        used = sorted({impression.context for impression in mine})
        moved = [Impression(used.index(i.context), i.click, i.conversion, i.fields) for i in mine]
        return PlainBatch([self.contexts[c] for c in used], moved)


def random_batch(rng: random.Random, num_contexts: int, num_impressions: int, num_rows: int) -> PlainBatch:
    """Contexts used by any number of impressions; bags of 0 to 4 tokens. Few rows: ids repeat."""

    def bags(count: int) -> list[Bag]:
        return [
            [(rng.randrange(num_rows), rng.random()) for _ in range(rng.randrange(5))] for _ in range(count)
        ]

    impressions = []
    for context in sorted(rng.randrange(num_contexts) for _ in range(num_impressions)):
        click = int(rng.random() < 0.4)
        fields = bags(len(IMPRESSION_FIELDS))
        impressions.append(Impression(context, click, click * int(rng.random() < 0.4), fields))
    return PlainBatch([bags(len(USER_FIELDS)) for _ in range(num_contexts)], impressions)


def to_batch(plain: PlainBatch, num_rows: int, world_size: int = 1) -> Batch:
    batch = Batch(
        torch.tensor([i.context for i in plain.impressions], dtype=torch.int64),
        torch.tensor([i.click for i in plain.impressions], dtype=torch.float32),
        torch.tensor([i.conversion for i in plain.impressions], dtype=torch.float32),
        _field_major(plain.contexts, len(USER_FIELDS)),
        _field_major([i.fields for i in plain.impressions], len(IMPRESSION_FIELDS)),
    )
    return batch.with_request(num_rows, world_size)


def _field_major(owners: list[list[Bag]], num_fields: int) -> Bags:
    bags = [owner[field] for field in range(num_fields) for owner in owners]
    tokens = [token for bag in bags for token in bag]
    return Bags(
        torch.tensor([row for row, _ in tokens], dtype=torch.int32),
        torch.tensor([weight for _, weight in tokens], dtype=torch.float32),
        torch.tensor([0, *(len(bag) for bag in bags)]).cumsum(0),
    )
