"""What SIGTERM does to a worker."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_STOPPED = 128 + signal.SIGTERM  # 143, as a shell says of a process that SIGTERM has ended


class Stop:
    """What SIGTERM does: it ends the process; or, while someone waits for it, it only sets `requested`."""

    def __init__(self) -> None:
        self.requested = False
        self._awaited = False

    def __call__(self, number: int, frame: object) -> None:
        """The signal's handler."""
        self.requested = True
        if not self._awaited:
            sys.exit(EXIT_STOPPED)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Inside, the process lives on after the signal: whoever waits looks at `requested` and ends it."""
        self._awaited = True
        try:
            yield
        finally:
            self._awaited = False


STOP = Stop()  # a process has one disposition of a signal
