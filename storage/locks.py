"""Locks of local files and folders. The kernel gives them back however the process that holds them ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from cli.errors import InputError


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


def _lock(handle: int) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _opened(folder: str | PathLike[str]) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)
