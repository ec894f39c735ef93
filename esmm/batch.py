"""One training batch: B impressions over U contexts, ids already in the fused table's row space."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from torch import Tensor

from schemas.fields import FIELDS, USER_FIELDS

if TYPE_CHECKING:  # which is made of bags
    from esmm.embedding.row_request import Request


def field_offsets(buckets: dict[str, int]) -> dict[str, int]:
    """First row of each field in the fused table; fields lie in the order of `FIELDS`."""
    offsets, start = {}, 0
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


@dataclass
class Batch:
    """B impressions over U contexts.

    context_index: int64 [B], ascending, which of the U contexts an impression belongs to.
    click, conversion: float32 [B]. user: bags of the 13 user fields for U contexts.
    impression: bags of the 10 item, cross and context fields for B impressions.
    request: what the bags ask of the embedding table, for a given number of workers.
    keys: only when predicting; columns sample_id, context_id, user_id, click, conversion, B rows.
    """

    context_index: Tensor
    click: Tensor
    conversion: Tensor
    user: Bags
    impression: Bags
    request: "Request | None" = None
    keys: pa.Table | None = None

    @property
    def num_impressions(self) -> int:
        return self.click.shape[0]

    @property
    def num_contexts(self) -> int:
        return (self.user.offsets.shape[0] - 1) // len(USER_FIELDS)

    def asked(self) -> "Request":
        """The request, which must have been made."""
        if self.request is None:
            raise ValueError("the batch has no request: esmm.embedding.row_request.with_request makes it")
        return self.request

    def to(self, device: torch.device) -> "Batch":
        """What a step needs on a device; the bags stay. Copies from pinned memory do not wait."""
        if device == self.click.device:
            return self
        return replace(
            self,
            context_index=self.context_index.to(device, non_blocking=True),
            click=self.click.to(device, non_blocking=True),
            conversion=self.conversion.to(device, non_blocking=True),
            request=self.request and self.request.to(device),
        )
