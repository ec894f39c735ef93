"""Training that goes on when workers come and go, under `horovodrun --min-np` (docs/elastic.md).

A worker that dies takes its rows of the table with it, so nothing can be repaired in memory: the workers
that are left, and those that wait to join, form a new world, and training begins again from the newest
checkpoint, as with --resume. Rows and data are dealt anew over whatever number of workers there is.
"""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import horovod.torch as hvd
import torch
from horovod.common.elastic import State, run_fn
from horovod.common.exceptions import HorovodInternalError

from cli.errors import exit_with_message
from esmm.workers.joining import leave
from esmm.workers.process import one_message, prepare_process, says
from esmm.workers.stop import EXIT_STOPPED
from esmm.workers.world import AgreedError, World

log = logging.getLogger(__name__)
MOST_FUTILE = 3  # worlds in a row that break before their first checkpoint

Command = Callable[[World], None]


class _News(State):
    """What Horovod tells of hosts. It holds none of the training: a new world reads a checkpoint."""

    def __init__(self) -> None:
        super().__init__(hvd.broadcast_object, hvd.rank)

    def restore(self) -> None:
        """Called after a failure."""

    def sync(self) -> None:
        """Called before training begins, first or again."""


@dataclass
class _Attempts:
    """Whether training has begun, and worlds in a row that broke before their first checkpoint."""

    begun: bool = False
    futile: int = 0


def run_elastic(begin: Command, resume: Command) -> None:
    """Train until a world gets to the end: the first to train by `begin`, every later one by `resume`.

    `world.admit` ends a world for the sake of workers that wait to join it; that of a dead worker ends by
    the error of the others' next exchange.
    """
    news = _News()
    attempts = _Attempts()

    def admit() -> None:
        attempts.futile = 0
        news.check_host_updates()

    def begun() -> None:
        attempts.begun = True

    def attempt(_: _News) -> None:
        attempts.futile += 1
        world = replace(World.start(), admit=admit, begun=begun, elastic=True)
        with one_message(world):
            again = _has_begun(world, attempts)
            _train_in(world, resume if again else begin)

    def main() -> None:
        prepare_process()
        run_fn(attempt, _leave)(news)

    exit_with_message(main)


def _has_begun(world: World, attempts: _Attempts) -> bool:
    """Whether any worker's training has begun before; an `AgreedError` where that leads nowhere."""
    counts = torch.tensor([int(attempts.begun), int(attempts.futile > MOST_FUTILE)])
    world.all_reduce_([counts], "elastic")
    again, futile = counts.tolist()
    if futile:
        raise AgreedError(
            f"training has begun {MOST_FUTILE} times in a row and lost a worker each time before it reached "
            "a checkpoint. The messages above say how they ended. Go on with --resume once that is mended; "
            "train.checkpoint_steps or train.checkpoint_minutes makes checkpoints more frequent."
        )
    if again:
        log.info("going on with %d worker(s)", world.size)
    return again > 0


def _train_in(world: World, command: Command) -> None:
    """Train in one world."""
    try:
        command(world)
    except SystemExit as end:
        if end.code != EXIT_STOPPED or world.stop.requested:
            raise
        log.info("another worker was told to stop: going on without it")
        raise HorovodInternalError from end
    except HorovodInternalError as error:
        log.warning("rank %d of %d: %s", world.rank, world.size, says(error))
        raise


def _leave() -> None:
    leave()
    gc.collect()  # the old world's shard goes before the new one's comes
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # what torch keeps for later would pass for memory in use
