"""Ids of many fields as weighted bags, already in the row space of the fused table."""

from dataclasses import dataclass

from torch import Tensor


def field_offsets(buckets: dict[str, int]) -> dict[str, int]:
    """First row of each field in the fused table, in which the fields lie in this order, the schema's."""
    offsets = {}
    start = 0
    for name, size in buckets.items():
        offsets[name] = start
        start += size
    return offsets


@dataclass
class Bags:
    """Ids as K weighted bags, owner by owner, field by field; an owner is a context or an impression.

    ids: int32 [T], rows of the fused table. weights: float32 [T]. offsets: int32 [K + 1]; bag k holds
    ids[offsets[k] : offsets[k + 1]], and of F fields bag n*F + f is that of field f of the n-th owner.
    """

    ids: Tensor
    weights: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    def part(self, first: int, last: int) -> "Bags":
        """Bags first to last; ids and weights are not copied."""
        begin, end = self.offsets[first], self.offsets[last]
        return Bags(self.ids[begin:end], self.weights[begin:end], self.offsets[first : last + 1] - begin)
