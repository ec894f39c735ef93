"""Runs a command and leaves none of its descendants behind, however the process that asked for it ends.

    python nursery.py COMMAND...      with standard input a pipe that the asking process holds open

A cluster's daemons start containers in sessions of their own, which a signal to a process group does not
reach. As a "child subreaper" this process stays the ancestor of all of them; when the command ends, or the
pipe is closed (by the kernel too, where the holder is killed), it kills every one that is left.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")


def kill_descendants() -> None:
    """Kill until nobody is left: between listing and killing, a process may start another."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            if child.is_running():
                child.kill()
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break


def main() -> None:
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # Ctrl-C is for the holder of the pipe: its end is ours
    child = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # Should even this process be killed, then at least its child goes with it.
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(os.pidfd_open(child.pid), selectors.EVENT_READ)
        selector.select()
    code = child.poll()
    kill_descendants()
    sys.exit(1 if code is None else code % 256)


if __name__ == "__main__":
    main()
