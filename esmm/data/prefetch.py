"""Work a little ahead of the consumer on a thread, without leaking it."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.05


def prefetch(source: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The items of `source`, made by a thread up to `depth` ahead; its errors are raised here."""
    ready: queue.Queue[T | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: T | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in source:
                if not put(item):
                    break
            source.close()
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=fill, name="loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
