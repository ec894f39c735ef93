"""Locks of local files and folders. The kernel gives them back however the process that holds them ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from cli.errors import InputError

POLL_SECONDS = 0.1


def require_lock(handle: int, path: str | PathLike[str], busy: str) -> None:
    """Lock an open file or folder for as long as it is open, or an `InputError`.

    busy: what is said where another process holds the lock.
    """
    try:
        _lock(handle)
    except BlockingIOError as error:
        raise InputError(f"{path}: {busy}") from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a file system with locks, so that two runs do not meet there, found one that "
            f"cannot lock a file ({error.strerror}). Mount it with locks, or choose a folder on another."
        ) from error


@contextmanager
def require_only_run(folder: str | PathLike[str], busy: str) -> Iterator[None]:
    """Hold the lock of a folder; see `require_lock`."""
    with _opened(folder) as handle:
        require_lock(handle, folder, busy)
        yield


@contextmanager
def locked_if_free(folder: str | PathLike[str]) -> Iterator[bool]:
    """Hold the lock of a folder while it is free; whether it is ours.

    Never where the file system has no locks for folders, as NFS.
    """
    with _opened(folder) as handle:
        try:
            _lock(handle)
        except OSError:
            is_ours = False
        else:
            is_ours = True
        yield is_ours


@contextmanager
def wait_for_lock(path: str | PathLike[str], seconds: float) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is not there and says who holds it.

    `InputError` that names the file and its holder where it is not free within so many seconds.
    """
    with open(path, "a+") as file:
        _wait(file.fileno(), path, seconds)
        file.truncate(0)
        print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
        try:
            yield
        finally:
            file.truncate(0)


def _wait(handle: int, path: str | PathLike[str], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            _lock(handle)
            return
        except BlockingIOError:
            time.sleep(POLL_SECONDS)
        except OSError:
            break  # no locks here: what comes now says so
    with open(path) as file:
        holder = file.read().strip() or "another process"
    require_lock(
        handle, path, f"waited {seconds:g} s for this lock, found it held by {holder}. Wait for its end."
    )


def _lock(handle: int) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _opened(folder: str | PathLike[str]) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)
