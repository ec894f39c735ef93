"""A command as one of the workers: how the process logs, what ends it, and who says why."""

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.errors import EXIT_BAD_INPUT, exit_with_message
from cli.log import set_up_logging
from esmm.workers.stop import STOP
from esmm.workers.world import AgreedError, World

EXIT_OTHER_STOPPED = 1
# How Horovod and Gloo say that a worker is gone.
LOST_WORKER = ("Connection closed", "Connection reset", "Broken pipe", "Horovod has been shut down")
PRINT_SECONDS = 2.0  # time rank 0 gets to print before another rank's exit ends the whole job


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
    """What a worker sets for its process: what SIGTERM does, and that it logs what is a warning.

    `World.start` lets rank 0 say more.
    """
    # horovodrun ends the workers that are left by SIGTERM: as an exit, so that they tidy up.
    signal.signal(signal.SIGTERM, STOP)
    set_up_logging(logging.WARNING)


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
