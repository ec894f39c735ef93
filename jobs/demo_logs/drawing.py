"""All chunks of the demo logs, drawn by one process or several and appended to their files in order."""

import logging
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

from jobs.demo_logs.chunks import CHUNK, ChunkResult, ChunkTask, Drawer, Split
from storage.filesystems import filesystem

LOG = logging.getLogger(__name__)


def make_tasks(splits: tuple[Split, ...]) -> list[ChunkTask]:
    """All chunks; within a file in the order of the file."""
    tasks = []
    for number, split in enumerate(splits):
        for kind, total in (("skeleton", len(split.plan.segment_context)), ("common", split.plan.contexts)):
            tasks += [ChunkTask(number, kind, a, min(a + CHUNK, total)) for a in range(0, total, CHUNK)]
    return tasks


_drawer: Drawer | None = None  # of this worker process


def _start_worker(*arguments: Any) -> None:
    global _drawer
    _drawer = Drawer(*arguments)


def _draw_in_worker(task: ChunkTask) -> ChunkResult:
    assert _drawer is not None  # the pool's initializer ran first
    return _drawer.draw(task)


def draw_in_order(
    tasks: list[ChunkTask], processes: int, drawer_arguments: tuple[Any, ...]
) -> Iterator[ChunkResult]:
    """The drawn tasks in order; at most four chunks per process are in memory."""
    if processes == 1:
        yield from map(Drawer(*drawer_arguments).draw, tasks)
        return
    with ProcessPoolExecutor(processes, initializer=_start_worker, initargs=drawer_arguments) as pool:
        waiting: deque[Future[ChunkResult]] = deque()
        for task in tasks:
            waiting.append(pool.submit(_draw_in_worker, task))
            if len(waiting) >= 4 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def with_progress(results: Iterator[ChunkResult], total: int) -> Iterator[ChunkResult]:
    """Pass results on: a bar on a terminal, else a log line per tenth."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(results, total=total, unit="chunk", desc="demo logs")
        return
    for done, result in enumerate(results, start=1):
        yield result
        if done * 10 // total > (done - 1) * 10 // total:
            LOG.info("drawn %d of %d chunks", done, total)


def write_files(folder: str, results: Iterator[ChunkResult]) -> dict[str, dict[str, int]]:
    """Append the chunks to their files in `folder`; returns the counts per split."""
    counts: dict[str, dict[str, int]] = {}
    fs, path = filesystem(folder)
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for result in results:
            for name, part in result.parts.items():
                if name not in files:
                    files[name] = stack.enter_context(fs.open(f"{path}/{name}", "wb"))
                files[name].write(part)
            total = counts.setdefault(result.split, {})
            for key, value in result.counts.items():
                total[key] = total.get(key, 0) + value
    return counts
