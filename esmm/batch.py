"""One training batch: B impressions over U contexts, ids already in the fused table's row space."""

from dataclasses import dataclass, replace

import pyarrow as pa
import torch
from torch import Tensor

from esmm.embedding.bags import Bags
from esmm.embedding.row_request import Request, encode_requests

TENSORS = ("context_index", "click", "conversion", "user_numbers", "impression_numbers", "weight", "action")


@dataclass
class Batch:
    """B impressions over U contexts.

    context_index: int64 [B], ascending, which of the U contexts an impression belongs to.
    click, conversion: float32 [B]. bags: of the user fields of each context, then of the item, cross and
    context fields of each impression. num_user_fields, num_impression_fields: how many these are.
    request: which rows of the embedding table the bags need, for a given number of workers.
    user_numbers, impression_numbers: float32 [U, N_u] and [B, N_i], NaN where missing; None where the samples
    have neither. weight: float32 [B], how much each impression counts in training; None: they all count 1.
    action: float32 [B], 0 or 1, what led from clicks to conversions; None where the samples do not tell.
    keys: only when predicting; columns sample_id, context_id, user_id, click, conversion, B rows.
    """

    context_index: Tensor
    click: Tensor
    conversion: Tensor
    bags: Bags
    num_user_fields: int
    num_impression_fields: int
    request: Request | None = None
    user_numbers: Tensor | None = None
    impression_numbers: Tensor | None = None
    weight: Tensor | None = None
    action: Tensor | None = None
    keys: pa.Table | None = None

    @property
    def num_impressions(self) -> int:
        return self.click.shape[0]

    @property
    def num_lists(self) -> int:
        """The bags of the contexts, which come first."""
        return len(self.bags) - self.num_impressions * self.num_impression_fields

    @property
    def num_contexts(self) -> int:
        return self.num_lists // self.num_user_fields

    @property
    def numbers(self) -> tuple[Tensor, Tensor] | None:
        """Those of the contexts and of the impressions; None where the samples have neither."""
        if self.user_numbers is None or self.impression_numbers is None:
            return None
        return self.user_numbers, self.impression_numbers

    @property
    def user(self) -> Bags:
        """The bags of the contexts."""
        return self.bags.part(0, self.num_lists)

    @property
    def impression(self) -> Bags:
        """The bags of the impressions."""
        return self.bags.part(self.num_lists, len(self.bags))

    def with_request(self, num_rows: int, world_size: int, pin_memory: bool = False) -> "Batch":
        """The batch with its request; num_rows: of the fused table."""
        request = encode_requests(self.bags, self.num_lists, num_rows, world_size)
        return replace(self, request=request.pin_memory() if pin_memory else request)

    def require_request(self) -> Request:
        """The request, which must have been made."""
        if self.request is None:
            raise ValueError("the batch has no request: with_request makes it")
        return self.request

    def to(self, device: torch.device) -> "Batch":
        """What a step needs on a device; the bags stay. Copies from pinned memory do not wait."""
        if device == self.click.device:
            return self
        found = {name: getattr(self, name) for name in TENSORS}
        moved = {name: t.to(device, non_blocking=True) for name, t in found.items() if t is not None}
        return replace(self, request=self.request and self.request.to(device), **moved)
