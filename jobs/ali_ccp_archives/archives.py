"""Raw logs out of tar and gzip archives: streamed, counted, each whole under its name or not there at all."""

import logging
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa

from cli.errors import InputError

LOG = logging.getLogger(__name__)

BLOCK_BYTES = 64 << 10  # with blocks beyond the processor's cache tarfile takes as long as zlib
LINE_FEED = ord("\n")


@dataclass(frozen=True)
class Counted:
    """What a file of raw logs holds."""

    rows: int
    bytes: int


class StoppedError(Exception):
    """Another thread failed or the user interrupted."""


class CopyProgress:
    """Bytes done by several threads: a bar on a terminal, else a log line per tenth."""

    def __init__(self, total: int, what: str) -> None:
        self._total = max(1, total)
        self._what = what
        self._done = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=what)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Threads that still work end at their next block."""
        self._stopped = True
        if self._bar is not None:
            self._bar.close()

    def add(self, num_bytes: int) -> None:
        """Count bytes; raises `StoppedError` where the work is to end."""
        if self._stopped:
            raise StoppedError
        with self._lock:
            before = self._done
            self._done += num_bytes
            if self._bar is not None:
                self._bar.update(num_bytes)
            elif self._done * 10 // self._total > before * 10 // self._total:
                LOG.info("%s: %.1f of %.1f GB", self._what, self._done / 1e9, self._total / 1e9)


def unpack_tar(archive: Path, names: set[str], folder: Path, progress: CopyProgress) -> dict[str, Counted]:
    """Unpack the members with these base names, whatever their folders, from a .tar.gz into `folder`.

    They appear together, when the archive was read to its end and its checksum is right. All other
    members are passed over, so none can lead out of the folder.
    """
    counted: dict[str, Counted] = {}
    with ExitStack() as files, _gzip_stream(archive, progress) as (stream, watch):
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                content = tar.extractfile(member) if member.isfile() and name in names else None
                if content is None:
                    continue
                if name in counted:
                    raise InputError(f"{archive}: found {name} twice, expected it once. Fetch it again.")
                counted[name] = _copy(content, files.enter_context(_whole(folder / name)), watch)
        while stream.read(BLOCK_BYTES):  # the checksum comes last
            watch()
        missing = names - counted.keys()
        if missing:
            raise InputError(f"{archive}: expected {' and '.join(sorted(missing))} in it, found none.")
    return counted


def unpack_gzip(source: Path, target: Path, progress: CopyProgress) -> Counted:
    """Unpack a .gz file; it appears when it was read to its end and its checksum is right."""
    with _whole(target) as file, _gzip_stream(source, progress) as (stream, watch):
        return _copy(stream, file, watch)


def count(path: Path, progress: CopyProgress) -> Counted:
    """Count the lines and bytes of a plain file."""
    with path.open("rb", buffering=0) as stream:
        return _copy(stream, None, _watch(stream, progress))


def _copy(source: IO[bytes], target: IO[bytes] | None, watch: Callable[[], None]) -> Counted:
    rows = 0
    size = 0
    last = LINE_FEED
    while block := source.read(BLOCK_BYTES):
        if target is not None:
            target.write(block)
        rows += int(np.count_nonzero(np.frombuffer(block, np.uint8) == LINE_FEED))
        size += len(block)
        last = block[-1]
        watch()
    return Counted(rows + (last != LINE_FEED), size)


@contextmanager
def _gzip_stream(path: Path, progress: CopyProgress) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """The uncompressed bytes, and what to call while reading them. A damaged file is an `InputError`.

    pyarrow's zlib is a quarter faster than the gzip module and, other than tarfile's own, looks at the
    checksum.
    """
    with path.open("rb") as raw:
        try:
            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "gzip") as stream:
                yield stream, _watch(raw, progress)
        except (tarfile.TarError, EOFError) as error:
            raise _damaged(path, error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: expected a whole archive, found a damaged one ({error}). Fetch it again.")


def _watch(raw: IO[bytes], progress: CopyProgress) -> Callable[[], None]:
    """A function that reports how far `raw` was read since its last call."""
    seen = 0

    def watch() -> None:
        nonlocal seen
        place = raw.tell()
        progress.add(place - seen)
        seen = place

    return watch


@contextmanager
def _whole(target: Path) -> Iterator[IO[bytes]]:
    """A new file that gets its name only if all went well."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb", buffering=1 << 20) as stream:
            yield stream
        partial.replace(target)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error  # a full disk names no file
    finally:
        partial.unlink(missing_ok=True)
