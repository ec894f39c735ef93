"""Which axes of a network's tensors run over the numbers of an impression's input, and what lies along them.

A tensor that reads the input can so be taken over by a network with other fields: the columns of a field go
where the field is now. What is known goes on reading what it has read, and of a new field nothing at first.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Self

import torch
from torch import Tensor

from schemas.numbers import Number
from schemas.schema import Schema

Labels = tuple[Hashable, ...]


@dataclass(frozen=True)
class Inputs:
    """Names of what the network reads, in its order. context, item: of either half, a field or numeric field
    each; numbers: those of the vector of each, their embedding_dim."""

    context: Labels
    item: Labels
    numbers: int

    @classmethod
    def of(cls, schema: Schema, embedding_dim: int) -> Self:
        context = (*(field.name for field in schema.user_fields), *_of_numbers(schema.user_numbers))
        item = (*(field.name for field in schema.impression_fields), *_of_numbers(schema.impression_numbers))
        return cls(context, item, embedding_dim)

    def of_context(self) -> Labels:
        return tuple(product(self.context, range(self.numbers), [self.numbers]))

    def of_item(self) -> Labels:
        return tuple(product(self.item, range(self.numbers), [self.numbers]))

    def axes(self, tensor: str) -> tuple[Labels | None, ...]:
        """What lies along each axis of a tensor, by the end of its name; None: nothing of the input."""
        whole = self.of_context() + self.of_item()
        ends: dict[str, tuple[Labels | None, ...]] = {
            "dots.context.weight": (None, _pairs(self.context)),
            "dots.item.weight": (None, _pairs(self.item) + _pairs(self.item, self.context)),
            "cross.context.weight": (whole, self.of_context()),
            "cross.context.bias": (whole,),
            "cross.item.weight": (whole, self.of_item()),
            "context.weight": (None, self.of_context()),
            "item.weight": (None, self.of_item()),
        }
        if "cross.later." in tensor:
            return (whole, whole) if tensor.endswith(".weight") else (whole,)
        return next((axes for end, axes in ends.items() if tensor.endswith(end)), ())


def _of_numbers(numbers: Sequence[Number]) -> Labels:
    """Their vectors are taken over where all numbers of the side are the same: so are their places."""
    together = tuple(str(number.use) for number in numbers)
    ordered = sorted(numbers, key=lambda number: bool(number.quantiles))
    return tuple((number.name, together) for number in ordered)


def _pairs(one: Labels, other: Labels | None = None) -> Labels:
    pairs = combinations(one, 2) if other is None else product(one, other)
    return tuple(frozenset(pair) for pair in pairs)


def move(old: Tensor, new: Tensor, before: Sequence[Labels | None], after: Sequence[Labels | None]) -> bool:
    """Copy what both have of the input, in place. False, and nothing done, where that is nothing.

    Where a known output reads an input that is not known it reads 0 of it.
    """
    if old.dim() != new.dim() or len(before) != old.dim():
        return False
    kept = [_common(*labels) for labels in zip(before, after, old.shape, new.shape, strict=True)]
    if not all(len(here) for here, _ in kept):
        return False
    targets = [there for _, there in kept]
    if new.dim() > 1:
        new[targets[0]] = 0
    new[torch.meshgrid(*targets, indexing="ij")] = old[
        torch.meshgrid(*(here for here, _ in kept), indexing="ij")
    ].to(new.device)
    return True


def _common(
    before: Labels | None, after: Labels | None, old_size: int, new_size: int
) -> tuple[Tensor, Tensor]:
    """Places along an axis that both have, in the old and in the new tensor; without names all or none."""
    if before is None or after is None:
        whole = torch.arange(old_size if old_size == new_size else 0)
        return whole, whole
    places = {label: place for place, label in enumerate(after)}
    pairs = [(here, places[label]) for here, label in enumerate(before) if label in places]
    found = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    return found[:, 0], found[:, 1]
