"""A batch's input dist: which rows of which owners it needs. Made on the loader's thread, before the step.

Row g of the table is local row g // world_size of rank g % world_size.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from esmm.embedding import pooling_kernel as kernel
from esmm.embedding.bags import Bags
from esmm.embedding.pooling import Pooling


@dataclass
class Request:
    """pooling: the batch's bags, those of the contexts, then those of the impressions.

    With one worker they are bags of table rows. With more, the table is dealt out, and they are bags of
    the vectors that the owners send back, in rank order: output_splits [world_size] of them.
    message: int32, for the owners in rank order, input_splits [world_size] numbers for each; empty with
    one worker. It stays in the CPU's memory: it is sent a step ahead, so that no GPU waits for it.
    """

    pooling: Pooling
    message: Tensor
    input_splits: list[int]
    output_splits: list[int]

    def to(self, device: torch.device) -> Self:
        return replace(self, pooling=self.pooling.to(device))

    def pin_memory(self) -> Self:
        return replace(self, pooling=self.pooling.pin_memory())


def encode_requests(bags: Bags, num_lists: int, num_rows: int, world_size: int) -> Request:
    """The request of a batch's bags of rows in 0..num_rows-1.

    num_lists: of the first bags, whose owners sum up their part of each; the bags of contexts.
    """
    ids = bags.ids.numpy()
    weights = bags.weights.numpy()
    offsets = bags.offsets.numpy()
    if world_size == 1:
        return Request(
            Pooling.of(ids, weights, offsets, num_rows), torch.empty(0, dtype=torch.int32), [0], [0]
        )
    rows_per_rank = -(-num_rows // world_size)
    message, inputs, outputs, *pooled = kernel.encode_requests(
        ids, weights, offsets, num_lists, rows_per_rank, world_size
    )
    pooling = Pooling.of(pooled[0], pooled[1], pooled[2], max(1, int(outputs.sum())))
    return Request(pooling, torch.from_numpy(message), inputs.tolist(), outputs.tolist())


def decode_requests(message: Tensor, splits: list[int], num_local_rows: int) -> tuple[Pooling, list[int]]:
    """Bags of this rank's rows whose sums the ranks want, and how many of them go to each: the output splits.

    message: what the ranks have sent, splits[r] numbers from rank r.
    """
    ids, weights, offsets, outputs = kernel.decode_requests(message.numpy(), np.array(splits))
    return Pooling.of(ids, weights, offsets, max(1, num_local_rows)), outputs.tolist()
