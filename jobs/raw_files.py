"""The raw log files of a job: found, checked by their first bytes, opened."""

import gzip
import json
from dataclasses import dataclass
from typing import IO, cast

from schemas import storage
from schemas.errors import InputError

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class LogFile:
    """One raw file. number: its place in the sorted list of all files; common: which side it is."""

    number: int
    path: str
    common: bool
    size: int

    @property
    def compressed(self) -> bool:
        return self.path.endswith(".gz")


def find_logs(skeleton: str, common: str) -> list[LogFile]:
    """The raw files of both sides, common records first, numbered in path order."""
    found = [(path, size, True) for path, size in _expand(common)]
    found += [(path, size, False) for path, size in _expand(skeleton)]
    return [LogFile(number, path, is_common, size) for number, (path, size, is_common) in enumerate(found)]


def _expand(pattern: str) -> list[tuple[str, int]]:
    """Files of a path or glob with their sizes; an `InputError` where there is nothing to read."""
    fs, path = storage.filesystem(pattern)
    names = sorted(fs.glob(path))
    if not names:
        raise InputError(
            f"{pattern}: no such file. Expected raw logs (.csv or .csv.gz), given as a path or a glob."
        )
    files = []
    for name in names:
        if not fs.isfile(name):
            raise InputError(
                f"{name}: expected a file, found a folder. Give a glob such as '{pattern}/*.csv'."
            )
        if not name.endswith((".csv", ".csv.gz")):
            raise InputError(f"{name}: expected a name that ends with .csv or .csv.gz.")
        size = int(fs.size(name))
        if size == 0:
            raise InputError(f"{name}: the file is empty. Remove it or fetch it again.")
        with fs.open(name, "rb") as stream:
            _check_kind(name, stream.read(2))
        files.append((fs.unstrip_protocol(name), size))
    return files


def _check_kind(name: str, head: bytes) -> None:
    if (head == b"\x1f\x8b") != name.endswith(".gz"):
        found = "gzip data" if head == b"\x1f\x8b" else "something else"
        expected = "gzip data" if name.endswith(".gz") else "plain text"
        raise InputError(f"{name}: expected {expected}, found {found}. Rename the file after what is in it.")


def open_log(file: LogFile) -> IO[bytes]:
    """The uncompressed bytes of a raw file."""
    fs, path = storage.filesystem(file.path)
    stream = fs.open(path, "rb", block_size=CHUNK_BYTES)
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream) if file.compressed else stream)


def files_to_json(files: list[LogFile]) -> str:
    return json.dumps([[f.number, f.path, f.common, f.size] for f in files])


def files_from_json(text: str) -> list[LogFile]:
    return [LogFile(*entry) for entry in json.loads(text)]
