"""How a process joins the other workers of a world, and leaves it."""

import socket

from cli.errors import InputError
from esmm.workers import control_groups, environment


def place() -> tuple[str, str]:
    """This worker's machine, and its control group there."""
    return socket.gethostname(), control_groups.own_group()


def join() -> tuple[int, int, list[tuple[str, str]]]:
    """Start Horovod; size, rank, and the ranks' places. Joined already, it tells the same again."""
    environment.prepare()
    try:
        import horovod.torch as hvd
    except ImportError as error:
        raise InputError(
            f"this is one of several Horovod workers, but Horovod can't be imported: {error}. "
            "Start the workers with the environment that `make setup` has made, on every machine."
        ) from error
    with environment.patience():
        hvd.init()
    return hvd.size(), hvd.rank(), hvd.allgather_object(place(), name="places")


def leave() -> None:
    """Leave a world that is broken or about to change. `World.start` joins the next one."""
    import horovod.torch as hvd

    hvd.shutdown()
