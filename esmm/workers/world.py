"""The workers of a run and what they say to each other; ranks and collectives are known here only.

`horovodrun -np N` starts N processes; without it there is one worker, Horovod is not imported, and
every method below returns what it would with one process, so that callers have one path.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Generic, NamedTuple, Self, TypeVar, cast

import torch
from torch import Tensor

from cli.errors import InputError
from esmm.workers import devices, environment
from esmm.workers.devices import Seat
from esmm.workers.joining import join, place
from esmm.workers.stop import STOP, Stop

log = logging.getLogger(__name__)
T = TypeVar("T")
POLL_SECONDS = 5e-5  # between two looks at a collective under way


class AgreedError(InputError):
    """An `InputError` that every rank raises at the same point: rank 0 prints it for all."""


class _Met(NamedTuple):
    """An `InputError` of one rank as the others learn of it. kind: what all of them raise for it."""

    kind: type[AgreedError]
    message: str

    @classmethod
    def of(cls, error: InputError | None) -> Self | None:
        """An error that whoever called may want to catch keeps its class."""
        if error is None:
            return None
        return cls(type(error) if isinstance(error, AgreedError) else AgreedError, str(error))


@dataclass(frozen=True)
class Handle(Generic[T]):
    """A collective under way. Leave its tensors alone until `wait`, to be called once, gives the result."""

    wait: Callable[[], T]


@dataclass(frozen=True)
class World:
    """Who this worker is among the workers, and the collectives between them.

    Collectives must be called by all ranks in the same order. `name` tells Horovod which calls of the
    ranks belong together; a name that stays the same from step to step is faster than a new one each time.

    local_rank, local_size: this worker's number and their number on this machine. admit: to be called by
    all ranks right after a checkpoint; where workers wait to join, training begins again from it with them.
    begun: to be called by all ranks once the run folder is this run's. elastic: workers may come and go.
    stop: what SIGTERM has asked of this process. groups: the control groups of this machine's workers.
    """

    size: int
    rank: int
    local_rank: int
    local_size: int
    device: torch.device
    admit: Callable[[], None] = lambda: None
    begun: Callable[[], None] = lambda: None
    elastic: bool = False
    stop: Stop = STOP
    groups: tuple[str, ...] = ()

    @classmethod
    def start(cls) -> Self:
        """Join the other workers and set this process's number of threads. It computes on the CPU (`use`).

        To be called anew after `leave`: rank and size may be others then.
        """
        size, rank, places = join() if environment.has_others() else (1, 0, [place()])
        machines = [machine for machine, _ in places]
        groups = tuple(group for machine, group in places if machine == machines[rank])
        # Not Horovod's own local rank: elastic workers of one machine pass for hosts of their own.
        local_rank = machines[:rank].count(machines[rank])
        local_size = machines.count(machines[rank])
        if "OMP_NUM_THREADS" not in os.environ:  # torch obeys it by itself
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
        # Ours only: petastorm's concerns nobody. In the next world this process may have another rank.
        logging.getLogger("esmm").setLevel(logging.INFO if rank == 0 else logging.NOTSET)
        return cls(size, rank, local_rank, local_size, torch.device("cpu"), groups=groups)

    def use(self, wish: str) -> Self:
        """This world on the device that `train.device` asks for. All ranks call it together."""
        seats = self._gathered(Seat.here(alone=self.size == 1), "seats")
        with self.qualify():
            device, why_not_a_gpu = devices.choose(wish, self.rank, seats)
        if why_not_a_gpu:
            log.info("computing on the CPU though there are GPUs: %s", why_not_a_gpu)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return replace(self, device=device)

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def workers_in(self, group: str) -> int:
        """How many of this machine's workers live in a control group: all, where that is not known."""
        return sum(PurePosixPath(own).is_relative_to(group) for own in self.groups) or self.local_size

    def start_all_to_all(
        self, rows: Tensor, send_counts: list[int], name: str
    ) -> Handle[tuple[Tensor, list[int]]]:
        """`all_to_all` in the background. A name may be under way once at a time."""
        if self.size == 1:
            return Handle(lambda: (rows, send_counts))
        import horovod.torch as hvd

        splits = torch.tensor(send_counts, dtype=torch.int32)
        handle = hvd.alltoall_async(rows, splits=splits, name=name)

        def wait() -> tuple[Tensor, list[int]]:
            received, counts = _finished(handle)
            return received, counts.tolist()

        return Handle(wait)

    def all_to_all(self, rows: Tensor, send_counts: list[int], name: str) -> tuple[Tensor, list[int]]:
        """Send the first send_counts[0] rows to rank 0, the next to rank 1, ...

        rows: [sum(send_counts), ...]. Returns the received rows in rank order and how many came from each.
        """
        return self.start_all_to_all(rows, send_counts, name).wait()

    def start_all_reduce(self, tensor: Tensor, name: str) -> Handle[Tensor]:
        """Replace a contiguous tensor by its sum over the ranks, in the background.

        A name may be under way once at a time.
        """
        if self.size == 1:
            return Handle(lambda: tensor)
        import horovod.torch as hvd

        handle = hvd.allreduce_async_(tensor, op=hvd.Sum, name=name)
        return Handle(lambda: cast(Tensor, _finished(handle)))

    def all_reduce_(self, tensors: list[Tensor], name: str) -> None:
        """Replace each tensor by its sum over the ranks, all in one allreduce. One dtype."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self.start_all_reduce(flat, name).wait()
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def broadcast_(self, tensors: list[Tensor], name: str) -> None:
        """Replace each tensor by rank 0's."""
        if self.size == 1:
            return
        import horovod.torch as hvd

        for index, tensor in enumerate(tensors):
            hvd.broadcast_(tensor, root_rank=0, name=f"{name}.{index}")

    def gather(self, rows: Tensor, name: str) -> Tensor | None:
        """All ranks' rows, in rank order, on rank 0; None on the others."""
        received, _ = self.all_to_all(rows, [rows.shape[0]] + [0] * (self.size - 1), name)
        return received if self.is_rank_zero else None

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        if self.size > 1:
            import horovod.torch as hvd

            hvd.barrier()

    @contextmanager
    def agree(self) -> Iterator[None]:
        """Do a block on every rank; where any of them meets an `InputError` in it, all raise the first one.

        One with a class of its own (`DamagedError`) comes after a plain one, which nobody may pass over.
        Any other exception is raised at once, on its rank alone.
        """
        own: InputError | None = None
        try:
            yield
        except InputError as error:
            own = error
        found = [met for met in self._gathered(_Met.of(own), "agree") if met]
        if found:
            first = min(found, key=lambda met: met.kind is not AgreedError)
            raise first.kind(first.message) from own

    @contextmanager
    def qualify(self) -> Iterator[None]:
        """`agree` for what a worker must be able to do to take part: find its files, hold its rows.

        Every rank does the same. Elastic workers that cannot raise their own error, and so leave; the others
        form a new world without them. What none of them can do ends all.
        """
        if not self.elastic:
            with self.agree():
                yield
            return
        own: InputError | None = None
        try:
            yield
        except InputError as error:
            own = error
        messages = self._gathered(None if own is None else str(own), "qualify")
        found = {rank: text for rank, text in enumerate(messages) if text is not None}
        if len(found) == self.size:
            raise AgreedError(found[0]) from own
        if own is not None:
            raise InputError(str(own)) from own
        for rank, text in found.items():
            from horovod.common.exceptions import HorovodInternalError

            raise HorovodInternalError(f"rank {rank} cannot take part: {text}")

    def _gathered(self, value: T, name: str) -> list[T]:
        """Every rank's value, on all ranks."""
        if self.size == 1:
            return [value]
        import horovod.torch as hvd

        return cast(list[T], hvd.allgather_object(value, name=name))

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Do something on rank 0 alone and give its result, or its `InputError`, to all ranks."""
        result: T | None = None
        with self.agree():
            if self.is_rank_zero:
                result = work()
        if self.size > 1:
            import horovod.torch as hvd

            result = hvd.broadcast_object(result, root_rank=0, name="on_rank_zero")
        return cast(T, result)


def _finished(handle: int) -> Any:
    """The result of one of Horovod's collectives.

    Horovod's own way to wait keeps a core busy asking, the core that its exchange or another worker needs.
    """
    import horovod.torch as hvd

    while not hvd.poll(handle):
        time.sleep(POLL_SECONDS)
    return hvd.synchronize(handle)
