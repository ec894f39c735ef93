"""Ending every process that one has started, however deep and in whatever session."""

import contextlib
import ctypes
import os
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PATIENCE = 15.0


def subreaper() -> None:
    """From now on orphans of this process's descendants become its children, so that it can find them."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end_all(patience: float = PATIENCE) -> None:
    """SIGTERM to all descendants, SIGKILL to those that are left after `patience` seconds."""
    for process in _descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    end = time.monotonic() + patience
    while (left := _descendants()) and time.monotonic() < end:
        psutil.wait_procs(left, timeout=0.2)
    while left := _descendants():  # a process that is killed may leave others behind
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def _descendants() -> list[psutil.Process]:
    """Those that run; the ones that have ended are reaped on the way."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
            elif process.ppid() == os.getpid():
                process.wait(0.1)
    return found
