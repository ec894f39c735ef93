"""What a launcher has set for this worker in the environment: is it one of several, and can they meet?

horovodrun and `horovod.spark` set HOROVOD_*. Where something is wrong there, Horovod aborts the process in
a thread of its own, which nothing can catch; so it is checked before.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cli.errors import InputError

PATIENCE_SECONDS = 20.0  # after which a worker says that it waits for others
CONNECT_SECONDS = 20.0
TIMEOUT_SECONDS = 120  # also that of a new worker's start, which must not kill those who wait for it
ADDRESS = "HOROVOD_GLOO_RENDEZVOUS_ADDR"  # of the launcher
PORT = "HOROVOD_GLOO_RENDEZVOUS_PORT"
NEEDED = ("HOROVOD_RANK", "HOROVOD_HOSTNAME", ADDRESS, PORT)

log = logging.getLogger(__name__)


def is_elastic() -> bool:
    """Whether workers may come and go: `horovodrun` was given --min-np or --host-discovery-script."""
    return _number("HOROVOD_ELASTIC", 0) > 0


def has_others() -> bool:
    """Whether there are other workers, or may be."""
    return is_elastic() or _number("HOROVOD_SIZE", 1) > 1


def prepare() -> None:
    """Set our time-out unless the user has; stop where launcher or other hosts are out of reach."""
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(TIMEOUT_SECONDS))
    _require_launcher()
    several_hosts = _number("HOROVOD_CROSS_SIZE", 1) > 1 and os.environ.get("HOROVOD_GLOO_IFACE") != "lo"
    if several_hosts:
        _require_own_address()


@contextmanager
def patience() -> Iterator[None]:
    """Say what is being waited for: where a worker never comes, Horovod ends this process with SIGABRT."""
    seconds = os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"]
    message = "rank %s still waits for other workers; Horovod aborts after HOROVOD_GLOO_TIMEOUT_SECONDS=%s"
    timer = threading.Timer(PATIENCE_SECONDS, log.warning, (message, os.environ["HOROVOD_RANK"], seconds))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _require_launcher() -> None:
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"environment: HOROVOD_SIZE={os.environ.get('HOROVOD_SIZE')}, but not {', '.join(missing)}. "
            "Start several workers with `horovodrun -np N python -m ...`; for one, unset HOROVOD_SIZE."
        )
    address = os.environ[ADDRESS]
    port = _number(PORT, 0)
    try:
        socket.create_connection((address, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"worker on {socket.gethostname()}: can't reach its launcher at {address}:{port} ({ADDRESS}, "
            f"{PORT}): {error}. Is it still running? Between hosts, name a network that all of them share: "
            "horovodrun --network-interfaces NAME."
        ) from error


def _require_own_address() -> None:
    """One of Horovod's connections ignores the interface and takes the address of the host's own name."""
    host = socket.gethostname()
    try:
        own = socket.gethostbyname(host)
    except OSError:
        own = "no address"
    if own == "no address" or own.startswith("127."):
        raise InputError(
            f"worker on {host}: its own name stands for {own}, where other hosts can't reach it. "
            f"Give {host} its address in their network in /etc/hosts, on {host} itself."
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"environment: {name}: expected a number, found {text!r}. horovodrun sets it.")
    return int(text)
