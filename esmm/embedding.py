"""One fused embedding table for all fields, its rows dealt over the workers.

Row g lies on rank g % world at local index g // world. What travels is the unique rows of a batch; no
dense gradient of the table exists anywhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from esmm.distributed import World
from esmm.grouping import Groups, group_equal, sum_bags
from esmm.sparse_optimizer import SparseOptimizer

ROWS_AT_ONCE = 1 << 18  # initial values are made in chunks, to bound memory


@dataclass
class Lookup:
    """The vectors of a batch and what it takes to bring their gradients home.

    vectors: [n, D], requires grad, one per distinct id. groups: the batch's ids by equal ones.
    owned_rows: int64 [R], local rows that the ranks asked of this one; owned_values: [R, D].
    send_counts, receive_counts: ids asked of each rank, and by each rank of this one.
    """

    vectors: Tensor
    groups: Groups
    owned_rows: Tensor
    owned_values: Tensor
    send_counts: list[int]
    receive_counts: list[int]


class ShardedEmbedding:
    """This rank's rows of a table [num_rows, dim], and the exchange of vectors and gradients."""

    def __init__(self, num_rows: int, dim: int, world: World) -> None:
        self.world, self.num_rows, self.dim = world, num_rows, dim
        self.rows_per_rank = -(-num_rows // world.size)
        self.table = torch.zeros(num_local_rows(num_rows, world.rank, world.size), dim, device=world.device)

    def initialise(self, seed: int, bound: float) -> None:
        """Fill this rank's rows, uniform in [-bound, bound)."""
        for start in range(0, self.table.shape[0], ROWS_AT_ONCE):
            chunk = self.table[start : start + ROWS_AT_ONCE]
            local = torch.arange(start, start + chunk.shape[0])
            chunk.copy_(initial_rows(local * self.world.size + self.world.rank, self.dim, seed, bound))

    def lookup(self, ids: Tensor) -> Lookup:
        """Fetch the vectors of int64 ids [T], all in 0..num_rows-1. All ranks call it together."""
        world = self.world
        # Keys sort by owner first, so that each owner's rows are one slice of the unique ones.
        owner, local = ids % world.size, ids.div(world.size, rounding_mode="floor")
        groups = group_equal(owner * self.rows_per_rank + local if world.size > 1 else ids)
        bounds = torch.arange(world.size + 1, device=ids.device) * self.rows_per_rank
        send_counts = torch.searchsorted(groups.unique, bounds).diff().tolist()
        asked, receive_counts = world.all_to_all(groups.unique % self.rows_per_rank, send_counts, "ids")
        values = self.table.index_select(0, asked)
        vectors, _ = world.all_to_all(values, receive_counts, "vectors")
        leaf = vectors.detach().requires_grad_()
        return Lookup(leaf, groups, asked, values, send_counts, receive_counts)

    def apply_gradients(self, lookup: Lookup, optimizer: SparseOptimizer, step: int) -> None:
        """Bring the gradients of `lookup.vectors` to their owners and update the owners' rows."""
        gradient = lookup.vectors.grad
        assert gradient is not None, "apply_gradients is called after backward"
        received, _ = self.world.all_to_all(gradient, lookup.send_counts, "gradients")
        rows, values = lookup.owned_rows, lookup.owned_values
        if self.world.size > 1:  # two ranks may have asked for the same row
            same = group_equal(rows)
            received = sum_bags(received, same.order, same.starts)
            rows, values = same.unique, values.index_select(0, same.order.index_select(0, same.starts[:-1]))
        optimizer.update(self.table, rows, values, received, step)


def num_local_rows(num_rows: int, rank: int, world_size: int) -> int:
    """How many of the rows rank, rank + world_size, rank + 2 * world_size, ... lie below num_rows."""
    return max(0, -(-(num_rows - rank) // world_size))


def initial_rows(rows: Tensor, dim: int, seed: int, bound: float) -> Tensor:
    """Start values [n, dim] of global rows int64 [n], uniform in [-bound, bound).

    A hash of (seed, row, column) and not a random stream, so that a row starts the same on any number of
    workers. The hash is the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    counter = rows.unsqueeze(1) * dim + torch.arange(dim)
    bits = _mix(counter * _GAMMA + _mix(torch.tensor(seed)))
    return _shift(bits, 40).float() * (2 * bound / (1 << 24)) - bound  # the top 24 bits fit a float32


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)


def _shift(bits: Tensor, places: int) -> Tensor:
    """Logical shift to the right: torch's own keeps the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shift(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shift(bits, 31)
