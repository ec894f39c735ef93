"""How far Spark is: one line that is rewritten on a terminal, elsewhere a line a minute in the log.

A thread looks at what Spark's status tracker knows: the stage that runs, and how many of its tasks are done.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark import SparkStageInfo, StatusTracker
from pyspark.sql import SparkSession

LOG = logging.getLogger(__name__)

SECONDS_ON_TERMINAL = 0.5
SECONDS_IN_LOG = 60.0
SECONDS_BETWEEN_LOOKS = 1.0  # so that the beginning of a stage is known
CLEAR_LINE = "\r\033[K"


@contextmanager
def shown(spark: SparkSession, stages: Sequence[str], num_bytes: int = 0) -> Iterator[None]:
    """Show how far Spark is until the block is left. stages: what they do, in order; the last name serves for
    all that follow. num_bytes: what every stage works through, 0 where nobody knows."""
    stop = threading.Event()
    arguments = (stop, spark.sparkContext.statusTracker(), stages, num_bytes)
    thread = threading.Thread(target=_watch, args=arguments, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def line(stage: str, done: int, total: int, seconds: float, num_bytes: int = 0) -> str:
    """`reading the logs: 25 %, 92 MB/s, 12 min left`, where `done` of a stage's tasks took some seconds.

    num_bytes: what all of its tasks work through, 0 where nobody knows.
    """
    share = done / total
    parts = [f"{stage}: {share:.0%}".replace("%", " %")]
    if done and num_bytes:
        parts.append(f"{share * num_bytes / 1e6 / seconds:.0f} MB/s")
    if done:
        parts.append(f"{duration(seconds / share - seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 5 min`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def name_of(place: int, stages: Sequence[str]) -> str:
    """The name of the stage at a place, from 0, with the number of it where there are several."""
    name = stages[min(place, len(stages) - 1)]
    if place >= len(stages):
        return f"{name} (stage {place + 1})"
    return f"{name} ({place + 1} of {len(stages)})" if len(stages) > 1 else name


def _watch(stop: threading.Event, tracker: StatusTracker, stages: Sequence[str], num_bytes: int) -> None:
    on_terminal = sys.stderr.isatty()
    interval = SECONDS_ON_TERMINAL if on_terminal else SECONDS_IN_LOG
    begins: dict[int, float] = {}  # of the stages seen
    looked = time.monotonic()
    due = looked + interval
    while not stop.wait(min(interval, SECONDS_BETWEEN_LOOKS)):
        running = _running(tracker)
        now = time.monotonic()
        if running is not None:
            place, stage = running
            begin = begins.setdefault(stage.stageId, looked)
            if now >= due:
                name = name_of(place, stages)
                text = line(name, stage.numCompletedTasks, stage.numTasks, now - begin, num_bytes)
                _show(text, on_terminal)
                due = now + interval
        looked = now
    if on_terminal:
        print(CLEAR_LINE, end="", file=sys.stderr, flush=True)


def _running(tracker: StatusTracker) -> tuple[int, SparkStageInfo] | None:
    """The stage that has tasks running, and its place in its job, which also counts the stages before it
    that an earlier job has done. None between stages, and where Spark no longer answers."""
    try:
        for job in map(tracker.getJobInfo, tracker.getActiveJobsIds()):
            for place, stage_id in enumerate(sorted(job.stageIds) if job else ()):
                stage = tracker.getStageInfo(stage_id)
                if stage is not None and stage.numActiveTasks:
                    return place, stage
    except (Py4JError, OSError):
        LOG.debug("no answer from Spark", exc_info=True)
    return None


def _show(text: str, on_terminal: bool) -> None:
    if on_terminal:
        print(f"{CLEAR_LINE}{text}", end="", file=sys.stderr, flush=True)
    else:
        LOG.info("%s", text)
