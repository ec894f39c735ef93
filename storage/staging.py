"""The hidden sibling that an output is written into until it is whole, and what killed jobs left of theirs.

A job that is killed leaves its sibling behind. The next job that publishes the same output removes it as
soon as it is certain that nobody writes there any more:

    locally   no process holds the folder's lock; where there are no locks nothing is taken for dead
    on HDFS   which knows no such lock, nothing in it has changed for a week
    elsewhere never: neither is known there
"""

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

from storage import publishing
from storage.filesystems import filesystem, is_hdfs, is_local
from storage.locks import locked_if_free

LOG = logging.getLogger(__name__)

# Locally: longer than from making a folder to locking it, or from moving an old output aside to removing it.
SECONDS_OF_GRACE = 60
SECONDS_ON_HDFS = 7 * 24 * 3600


@contextlib.contextmanager
def beside(folder: str) -> Iterator[str]:
    """A new hidden sibling of an output's folder, removed at the end unless it was published."""
    place = publishing.staging_name(folder)
    fs, path = filesystem(place)
    fs.makedirs(path)
    try:
        with locked_if_free(path) if is_local(fs) else contextlib.nullcontext():
            yield place
    finally:
        publishing.discard(place)


def sweep(folder: str) -> None:
    """Remove what killed jobs have left beside an output that is published; what can't be is told."""
    fs, path = filesystem(folder)
    above, _, name = path.rpartition("/")
    leftover = re.compile(rf"\.{re.escape(name)}\.staging-[0-9a-f]{{12}}")
    try:
        for sibling in fs.ls(above or "/", detail=False):
            if leftover.fullmatch(sibling.rpartition("/")[2]):
                with contextlib.suppress(FileNotFoundError):  # its own job has come to its end
                    _remove_if_dead(fs, sibling)
    except OSError as error:
        LOG.warning("%s: what killed jobs may have left beside it was not removed: %s", folder, error)


def _remove_if_dead(fs: Any, path: str) -> None:
    if is_local(fs):
        with locked_if_free(path) as is_ours:
            # Not the modification: moving an old output aside changes only this time.
            if is_ours and time.time() - os.stat(path).st_ctime > SECONDS_OF_GRACE:
                shutil.rmtree(path)
    elif is_hdfs(fs) and time.time() - _last_change(fs, path) > SECONDS_ON_HDFS:
        fs.rm(path, recursive=True)


def _last_change(fs: Any, path: str) -> float:
    """When anything below a folder on HDFS was written last, in seconds since 1970."""
    below = [] if fs.isfile(path) else fs.ls(path, detail=True)
    inside = [_last_change(fs, entry["name"]) for entry in below]
    return max([fs.info(path)["mtime"], *inside])
