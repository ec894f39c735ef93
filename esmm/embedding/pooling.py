"""Weighted sums of table rows, and their gradient, as one sparse matrix used in both directions.

`F.embedding_bag` has a fast forward pass (weighted sums of gathered rows). Its backward pass on a CPU is
many times slower than the same kernel run on the transposed matrix: for each row, the weighted sum of the
gradients of the bags it went into. So both directions here are that one kernel, and the transposed matrix
is made ahead of the step, by the loader's thread where that is possible.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from esmm.embedding.pooling_kernel import transpose

LONGEST_SEGMENT = 256  # tokens that one thread sums up one after the other


@dataclass
class Pooling:
    """K bags of T weighted rows, bag by bag and row by row. Integers are int32, weights float32.

    ids, weights: [T]; offsets: [K + 1]; bag k holds the tokens offsets[k] to offsets[k + 1].
    rows: [N], the distinct ids, ascending; bags, bag_weights: [T], which bags a row goes into, row by row.
    A row's tokens come in segments of limited length, so that a row that is in every bag keeps no thread
    waiting: starts: [S + 1], first token of each segment; row_starts: [N + 1], first segment of each row.
    """

    ids: Tensor
    weights: Tensor
    offsets: Tensor
    rows: Tensor
    row_starts: Tensor
    starts: Tensor
    bags: Tensor
    bag_weights: Tensor

    @classmethod
    def of(
        cls,
        ids: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int32],
        num_ids: int,
    ) -> Self:
        """From bags of ids in 0..num_ids-1."""
        arrays = (ids, weights, offsets, *transpose(ids, weights, offsets, num_ids, LONGEST_SEGMENT))
        return cls(*(torch.from_numpy(array) for array in arrays))

    def to(self, device: torch.device) -> Self:
        """On a device; copies from pinned memory do not wait."""
        return type(self)(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))

    def pin_memory(self) -> Self:
        return type(self)(*(tensor.pin_memory() for tensor in vars(self).values()))

    def sums(self, table: Tensor) -> Tensor:
        """table [R, D] -> [K, D], the weighted sum of each bag."""
        return _weighted_sums(table, self.ids, self.offsets, self.weights)

    def row_sums(self, gradient: Tensor) -> Tensor:
        """Gradient of the sums [K, D] -> gradient of the distinct rows [N, D]."""
        segments = _weighted_sums(gradient, self.bags, self.starts, self.bag_weights)
        if segments.shape[0] == self.rows.shape[0]:
            return segments
        order = torch.arange(segments.shape[0], dtype=torch.int32, device=segments.device)
        return _weighted_sums(segments, order, self.row_starts, None)


@record_function("pool")
def _weighted_sums(rows: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    if ids.shape[0] == 0:
        return rows.new_zeros(offsets.shape[0] - 1, rows.shape[1])
    return F.embedding_bag(
        ids, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
