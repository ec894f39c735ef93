"""One fused embedding table for all fields, its rows dealt over the workers.

Row g lies on rank g % world at local index g // world. An owner sums up what it holds of a user's list, so
that one vector per list and owner travels instead of hundreds; of the other fields each distinct row of a
batch travels once. No dense gradient of the table exists anywhere.
"""

from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor
from torch.profiler import record_function

from esmm.embedding.pooling import Pooling
from esmm.embedding.row_request import Request, decode_requests
from esmm.workers.world import Handle, World

ROWS_AT_ONCE = 1 << 14  # initial values are made in chunks that stay in the cache
SMALLEST_SCALE = 2.0**-10  # below it the stored rows would grow out of float32's good range


@dataclass
class Lookup:
    """The pooled vectors of a batch and what it takes to bring their gradients home.

    pooled: [K, D], one per bag of `request.pooling`. owned: bags of this rank's rows that the ranks have
    requested; with one worker the batch's own.
    """

    pooled: Tensor
    request: Request
    owned: Pooling


@dataclass
class UnderWay:
    """A request sent ahead. owned and vectors: as soon as this rank's output dist has begun."""

    slot: int
    message: Handle[tuple[Tensor, list[int]]]
    owned: Pooling | None = None
    vectors: Handle[tuple[Tensor, list[int]]] | None = None


class ShardedEmbedding:
    """This rank's rows of a table [num_rows, dim], and the exchange of vectors and gradients.

    The true rows are scale * table: weight decay shrinks all of them by one multiplication.
    """

    def __init__(self, num_rows: int, dim: int, world: World) -> None:
        self.world = world
        self.num_rows = num_rows
        self.dim = dim
        self.table = torch.zeros(num_local_rows(num_rows, world.rank, world.size), dim, device=world.device)
        self.scale = 1.0
        self._sent: dict[int, UnderWay] = {}

    def initialise(self, seed: int, bound: float) -> None:
        """Fill this rank's rows, uniform in [-bound, bound)."""
        for start in range(0, self.table.shape[0], ROWS_AT_ONCE):
            chunk = self.table[start : start + ROWS_AT_ONCE]
            local = torch.arange(start, start + chunk.shape[0])
            chunk.copy_(initial_rows(local * self.world.size + self.world.rank, self.dim, seed, bound))

    def start_input_dist(self, request: Request) -> None:
        """Send a request to the owners ahead of its `lookup`, in the background. All ranks, in one order."""
        if self.world.size > 1:
            used = {sent.slot for sent in self._sent.values()}
            slot = next(slot for slot in count() if slot not in used)
            # Horovod tells collectives under way by their names, and is faster with few of them.
            message = self.world.start_all_to_all(request.message, request.input_splits, f"ids.{slot}")
            self._sent[id(request)] = UnderWay(slot, message)

    def start_output_dist(self) -> None:
        """Send vectors, in the background, for the first request that still waits for its `lookup`.

        To be called when the rows are as that lookup shall find them. All ranks call it together.
        """
        for sent in islice(self._sent.values(), 1):
            self._send_vectors(sent)

    def drain(self) -> None:
        """Take in what was sent ahead and will not be looked up."""
        while self._sent:
            _, sent = self._sent.popitem()
            (sent.vectors or sent.message).wait()

    def lookup(self, request: Request) -> Lookup:
        """The pooled vectors of a batch. All ranks call it; `start_input_dist` may have come before."""
        if self.world.size == 1:
            return Lookup(self._scaled(request.pooling.sums(self.table)), request, request.pooling)
        if id(request) not in self._sent:
            self.start_input_dist(request)
        sent = self._sent.pop(id(request))
        if sent.vectors is None:
            self._send_vectors(sent)
        assert sent.owned is not None and sent.vectors is not None
        vectors, _ = _received(sent.vectors)
        return Lookup(self._scaled(request.pooling.sums(vectors)), request, sent.owned)

    def _send_vectors(self, sent: UnderWay) -> None:
        """Send the sums of this rank's rows that the ranks have requested."""
        message, splits = _received(sent.message)
        with record_function("plan"):
            owned, output_splits = decode_requests(message, splits, self.table.shape[0])
        sent.owned = owned.to(self.table.device)
        sums = sent.owned.sums(self.table)
        sent.vectors = self.world.start_all_to_all(sums, output_splits, f"vectors.{sent.slot}")

    def start_gradients(self, lookup: Lookup, gradient: Tensor) -> Handle[Tensor]:
        """Send the gradient of `lookup.pooled` [K, D] to the rows' owners, in the background.

        The handle gives that of this rank's distinct rows `lookup.owned.rows`, [n, D], all ranks' summed.
        """
        if self.world.size == 1:
            return Handle(lambda: lookup.owned.row_sums(gradient))
        sums = lookup.request.pooling.row_sums(gradient)
        handle = self.world.start_all_to_all(sums, lookup.request.output_splits, "gradients")
        return Handle(lambda: lookup.owned.row_sums(_received(handle)[0]))

    def shrink(self, factor: float) -> None:
        """Multiply all rows of the table, in no time."""
        self.scale *= factor
        if self.scale < SMALLEST_SCALE:
            self.table.mul_(self.scale)
            self.scale = 1.0

    def _scaled(self, pooled: Tensor) -> Tensor:
        return pooled if self.scale == 1.0 else pooled.mul_(self.scale)


def _received(handle: Handle[tuple[Tensor, list[int]]]) -> tuple[Tensor, list[int]]:
    """Wait for an exchange, under a name in profiles."""
    with record_function("exchange"):
        return handle.wait()


def owned_rows(rows: Tensor, rank: int, world_size: int) -> tuple[Tensor, Tensor]:
    """Which of global rows int64 [n] a rank owns (positions in it), and where it keeps them."""
    mine = (rows % world_size == rank).nonzero().squeeze(1)
    return mine, rows[mine].div(world_size, rounding_mode="floor")


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
