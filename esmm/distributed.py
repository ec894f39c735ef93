"""The workers of a run and what they say to each other: the only file that knows Horovod or a rank.

`horovodrun -np N` starts N processes; without it there is one worker, Horovod is not imported, and
every method below returns what it would with one process, so that callers have one path.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar, cast

import torch
from torch import Tensor

from schemas.errors import EXIT_BAD_INPUT, InputError, exit_with_message

T = TypeVar("T")
EXIT_OTHER_STOPPED = 1
PRINT_SECONDS = 2.0  # time rank 0 gets to print before another rank's exit ends the whole job


class AgreedError(InputError):
    """An `InputError` that every rank raises at the same point: rank 0 prints it for all."""


@dataclass(frozen=True)
class World:
    """Who this worker is among the workers, and the collectives between them.

    Collectives must be called by all ranks in the same order. `name` tells Horovod which calls of the
    ranks belong together; a name that stays the same from step to step is faster than a new one each time.
    """

    size: int
    rank: int
    local_rank: int
    local_size: int
    device: torch.device

    @classmethod
    def start(cls) -> Self:
        """Join the other workers and set this process's device and number of threads."""
        size = int(os.environ.get("HOROVOD_SIZE", "1"))
        rank, local_rank, local_size = 0, 0, 1
        if size > 1:
            import horovod.torch as hvd

            hvd.init()
            rank, local_rank, local_size = hvd.rank(), hvd.local_rank(), hvd.local_size()
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", local_rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
        return cls(size, rank, local_rank, local_size, device)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def all_to_all(self, rows: Tensor, send_counts: list[int], name: str) -> tuple[Tensor, list[int]]:
        """Send the first send_counts[0] rows to rank 0, the next to rank 1, ...

        rows: [sum(send_counts), ...]. Returns the received rows in rank order and how many came from each.
        """
        if self.size == 1:
            return rows, send_counts
        import horovod.torch as hvd

        splits = torch.tensor(send_counts, dtype=torch.int32)
        received, counts = hvd.synchronize(hvd.alltoall_async(rows, splits=splits, name=name))
        return received, counts.tolist()

    def sum_(self, tensors: list[Tensor], name: str) -> None:
        """Replace each tensor by its sum over the ranks, all in one allreduce. One dtype."""
        if self.size == 1:
            return
        import horovod.torch as hvd

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        hvd.allreduce_(flat, op=hvd.Sum, name=name)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def broadcast_(self, tensors: list[Tensor], name: str) -> None:
        """Replace each tensor by rank 0's."""
        if self.size == 1:
            return
        import horovod.torch as hvd

        for index, tensor in enumerate(tensors):
            hvd.broadcast_(tensor, root_rank=0, name=f"{name}.{index}")

    def gather_to_first(self, rows: Tensor, name: str) -> Tensor | None:
        """All ranks' rows, in rank order, on rank 0; None on the others."""
        received, _ = self.all_to_all(rows, [rows.shape[0]] + [0] * (self.size - 1), name)
        return received if self.is_first else None

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        if self.size > 1:
            import horovod.torch as hvd

            hvd.barrier()

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank; where any of them meets an `InputError`, all raise the first one."""
        result, message = None, None
        try:
            result = work()
        except InputError as error:
            message = str(error)
        messages = [message]
        if self.size > 1:
            import horovod.torch as hvd

            messages = hvd.allgather_object(message, name="together")
        first = next((text for text in messages if text is not None), None)
        if first is not None:
            raise AgreedError(first)
        return cast(T, result)

    def on_first(self, work: Callable[[], T]) -> T:
        """Do something on rank 0 alone and give its result, or its `InputError`, to all ranks."""
        result = self.together(lambda: work() if self.is_first else None)
        if self.size > 1:
            import horovod.torch as hvd

            result = hvd.broadcast_object(result, root_rank=0, name="on_first")
        return cast(T, result)


def run(main: Callable[[World], None]) -> None:
    """Start this worker, run a command, and end all workers with one message where the input is wrong.

    A message that all ranks have is printed by rank 0. One that a single rank has, such as a file that
    broke while only that rank read it, is printed by that rank, and its exit ends the others.
    """

    def with_world() -> None:
        # horovodrun ends the workers that are left by SIGTERM: as an exit, so that they tidy up.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        world = World.start()
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        if world.is_first:
            logging.getLogger("esmm").setLevel(logging.INFO)  # ours only: petastorm's concerns nobody
        try:
            main(world)
        except AgreedError:
            if world.is_first:
                raise
            time.sleep(PRINT_SECONDS)
            sys.exit(EXIT_BAD_INPUT)
        except RuntimeError as error:
            if not _says_that_another_worker_stopped(error):
                raise
            logging.error("rank %d stops: another worker has stopped.", world.rank)
            sys.exit(EXIT_OTHER_STOPPED)

    exit_with_message(with_world)


def _says_that_another_worker_stopped(error: RuntimeError) -> bool:
    """Horovod's own error class, without importing Horovod where there is one worker."""
    return type(error).__name__ == "HorovodInternalError"
