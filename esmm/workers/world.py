"""The workers of a run and what they say to each other; ranks and collectives are known here only.

`horovodrun -np N` starts N processes; without it there is one worker, Horovod is not imported, and
every method below returns what it would with one process, so that callers have one path.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Generic, Self, TypeVar, cast

import torch
from torch import Tensor

from cli.errors import EXIT_BAD_INPUT, InputError, exit_with_message
from esmm.workers import devices, environment
from esmm.workers.devices import Seat
from esmm.workers.joining import join, place
from esmm.workers.stop import EXIT_STOPPED as EXIT_STOPPED
from esmm.workers.stop import STOP, Stop

log = logging.getLogger(__name__)
T = TypeVar("T")
EXIT_OTHER_STOPPED = 1
POLL_SECONDS = 5e-5  # between two looks at a collective under way
# How Horovod and Gloo say that a worker is gone.
LOST_WORKER = ("Connection closed", "Connection reset", "Broken pipe", "Horovod has been shut down")
PRINT_SECONDS = 2.0  # time rank 0 gets to print before another rank's exit ends the whole job


class AgreedError(InputError):
    """An `InputError` that every rank raises at the same point: rank 0 prints it for all."""


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
        local_rank, local_size = machines[:rank].count(machines[rank]), machines.count(machines[rank])
        if "OMP_NUM_THREADS" not in os.environ:  # torch obeys it by itself
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
        # Ours only: petastorm's concerns nobody. In the next world this process may have another rank.
        logging.getLogger("esmm").setLevel(logging.INFO if rank == 0 else logging.NOTSET)
        return cls(size, rank, local_rank, local_size, torch.device("cpu"), groups=groups)

    def use(self, wish: str) -> Self:
        """This world on the device that `train.device` asks for. All ranks call it together."""
        seats = self._gathered(Seat.here(alone=self.size == 1), "seats")
        device, why_not_a_gpu = self.qualify(lambda: devices.choose(wish, self.rank, seats))
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

    def agree(self, work: Callable[[], T]) -> T:
        """Do something on every rank; where any of them meets an `InputError`, all raise the first one."""
        result, message = _attempted(work)
        first = next((text for text in self._gathered(message, "agree") if text is not None), None)
        if first is not None:
            raise AgreedError(first)
        return cast(T, result)

    def qualify(self, work: Callable[[], T]) -> T:
        """`agree` for what a worker must be able to do to take part: find its files, hold its rows.

        Every rank does the same. Elastic workers that cannot raise their own error, and so leave; the others
        form a new world without them. What none of them can do ends all.
        """
        if not self.elastic:
            return self.agree(work)
        result, message = _attempted(work)
        messages = dict(enumerate(self._gathered(message, "qualify")))
        found = {rank: text for rank, text in messages.items() if text is not None}
        if len(found) == self.size:
            raise AgreedError(found[0])
        if message is not None:
            raise InputError(message)
        for rank, text in found.items():
            from horovod.common.exceptions import HorovodInternalError

            raise HorovodInternalError(f"rank {rank} cannot take part: {text}")
        return cast(T, result)

    def _gathered(self, value: T, name: str) -> list[T]:
        """Every rank's value, on all ranks."""
        if self.size == 1:
            return [value]
        import horovod.torch as hvd

        return cast(list[T], hvd.allgather_object(value, name=name))

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Do something on rank 0 alone and give its result, or its `InputError`, to all ranks."""
        result = self.agree(lambda: work() if self.is_rank_zero else None)
        if self.size > 1:
            import horovod.torch as hvd

            result = hvd.broadcast_object(result, root_rank=0, name="on_rank_zero")
        return cast(T, result)


def _attempted(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """The result of some work, or the message of its `InputError`."""
    try:
        return work(), None
    except InputError as error:
        return None, str(error)


def _finished(handle: int) -> Any:
    """The result of one of Horovod's collectives.

    Horovod's own way to wait keeps a core busy asking, the core that its exchange or another worker needs.
    """
    import horovod.torch as hvd

    while not hvd.poll(handle):
        time.sleep(POLL_SECONDS)
    return hvd.synchronize(handle)


def run(main: Callable[[World], None]) -> None:
    """Start this worker, run a command, and end all workers with one message where the input is wrong.

    A message that all ranks have is printed by rank 0. One that a single rank has, such as a file that
    broke while only that rank read it, is printed by that rank, and its exit ends the others.
    """

    def with_world() -> None:
        prepare_process()
        world = World.start()
        try:
            with one_message(world):
                main(world)
        except RuntimeError as error:
            if not _is_of_horovod(error):
                raise
            logging.error("rank %d stops: %s", world.rank, says(error))
            sys.exit(EXIT_OTHER_STOPPED)

    exit_with_message(with_world)


def prepare_process() -> None:
    """What a worker sets for its process: how it logs, what SIGTERM does."""
    # horovodrun ends the workers that are left by SIGTERM: as an exit, so that they tidy up.
    signal.signal(signal.SIGTERM, STOP)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


@contextmanager
def one_message(world: World) -> Iterator[None]:
    """Where all ranks raise the same `AgreedError`, rank 0 alone passes it on; the others just end."""
    try:
        yield
    except AgreedError:
        if world.is_rank_zero:
            raise
        time.sleep(PRINT_SECONDS)
        sys.exit(EXIT_BAD_INPUT)


def says(error: RuntimeError) -> str:
    """What to tell the user of an error of Horovod's: its own words where it is more than a lost worker."""
    text = " ".join(str(error).split())
    if not text or any(words in text for words in LOST_WORKER):
        return "another worker has stopped"
    return f"the exchange with the others has failed: {text}"


def _is_of_horovod(error: RuntimeError) -> bool:
    """Whether it has Horovod's own error class, without importing Horovod where there is one worker."""
    return type(error).__name__ == "HorovodInternalError"
