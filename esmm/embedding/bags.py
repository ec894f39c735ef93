"""Ids of many fields as weighted bags, already in the row space of the fused table."""

from dataclasses import dataclass

from torch import Tensor

from schemas.fields import FIELDS


def field_offsets(buckets: dict[str, int]) -> dict[str, int]:
    """First row of each field in the fused table; fields lie in the order of `FIELDS`."""
    offsets = {}
    start = 0
    for field in FIELDS:
        offsets[field.name] = start
        start += buckets[field.name]
    return offsets


@dataclass
class Bags:
    """Ids of F fields for N contexts or impressions, as weighted bags, field-major.

    ids: int32 [T], rows of the fused table. weights: float32 [T]. offsets: int32 [F*N + 1];
    bag f*N + n holds ids[offsets[f*N + n] : offsets[f*N + n + 1]] of field f of the n-th owner.
    """

    ids: Tensor
    weights: Tensor
    offsets: Tensor
