"""The raw log files of a job: found, checked by their first bytes, opened."""

import argparse
import gzip
import json
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from typing import IO, Any, cast

from cli.errors import InputError
from jobs.raw_logs import packed_rows
from jobs.raw_logs.file_checks import has_lines
from jobs.raw_logs.listing import Listed, listed, open_as_listed
from storage.filesystems import filesystem

LOG = logging.getLogger(__name__)

CHUNK_BYTES = 8 << 20
HEAD_THREADS = 16  # a head costs a round trip on a remote file system, not work here
GZIP_RATIO = 4  # bytes of Ali-CCP's logs for each byte of them compressed
ENDINGS = (".csv", ".csv.gz")
MAX_FILES = 1 << (63 - packed_rows.OFFSET_BITS)
SKELETON_PREFIX, COMMON_PREFIX = "sample_skeleton", "common_features"

FILES_HELP = (
    "files, globs or folders, .csv and .csv.gz mixed. A folder stands for all files below it, or only for "
    f"those of this side where names begin with {SKELETON_PREFIX} and {COMMON_PREFIX}. "
    "Names that begin with _ or . are left out"
)


@dataclass(frozen=True)
class LogFile:
    """One raw file. number: its place in the sorted list of all files; common: which side it is; size, in
    bytes, and version: as in `jobs.raw_logs.listing`."""

    number: int
    path: str
    common: bool
    size: int
    version: str = ""

    @property
    def compressed(self) -> bool:
        return self.path.endswith(".gz")

    @property
    def text_bytes(self) -> int:
        """Bytes of the lines in it, in a compressed file about."""
        return self.size * GZIP_RATIO if self.compressed else self.size


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name the text logs of a command."""
    parser.add_argument("--skeleton", nargs="+", metavar="PATH", help=f"sample skeletons: {FILES_HELP}")
    parser.add_argument("--common", nargs="+", metavar="PATH", help="common features, in the same way")


def find_logs(skeleton: str | list[str], common: str | list[str]) -> list[LogFile]:
    """The raw files of both sides, common records first, each side in natural order of the paths.

    Both arguments: a path or glob of files or folders, or several of them. A file reached twice counts
    once, empty ones are left out. The first bytes of each are checked: see `jobs.raw_logs.file_checks`.
    """
    sides = [
        (is_common, _find_side(given, is_common)) for is_common, given in ((True, common), (False, skeleton))
    ]
    _refuse_too_many(sum(len(files) for _, files in sides))
    found = [
        (path, is_common, *file) for is_common, files in sides for path, file in _with_lines(files, is_common)
    ]
    return [LogFile(number, *entry) for number, entry in enumerate(found)]


def _find_side(given: str | list[str], common: bool) -> dict[str, Listed]:
    """The files of one side, sorted."""
    files: dict[str, Listed] = {}
    for pattern in [given] if isinstance(given, str) else given:
        files |= _expand(pattern, common)
    return {path: files[path] for path in _each_once(sorted(files, key=natural_order))}


def _refuse_too_many(found: int) -> None:
    if found > MAX_FILES:
        raise InputError(
            f"expected at most {MAX_FILES:,} raw files, as many as the place of a line in 64 bits can name, "
            f"found {found:,}. Join small files, or build fewer days at a time."
        )


def natural_order(path: str) -> tuple[list[str | int], str]:
    """Sorting key: part-2 comes before part-10."""
    parts = re.split(r"([0-9]+)", path)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path


def _each_once(paths: list[str]) -> list[str]:
    """Without paths that lead to the same file; an `InputError` where one file's lines are there twice."""
    by_place: dict[str, str] = {}
    for path in paths:
        local = path.removeprefix("file://")
        first = by_place.setdefault(os.path.realpath(local) if local != path else path, path)
        if first != path:
            LOG.warning("%s: left out, it is the same file as %s", path, first)
    once = list(by_place.values())
    both = sorted(set(once) & {path.removesuffix(".gz") for path in once if path.endswith(".gz")})
    if both:  # what `gunzip -k` leaves
        raise InputError(
            f"{both[0]}: found {both[0]}.gz too, every line would count twice. Remove one of the two."
        )
    return once


def _expand(pattern: str, common: bool) -> dict[str, Listed]:
    """The files of a path or glob; an `InputError` where there is none."""
    fs, path = filesystem(pattern)
    files: dict[str, Listed] = {}
    for name, info in _matches(fs, path).items():
        if name != path and _is_hidden(name.rpartition("/")[2]):
            continue
        files |= _in_folder(fs, name, common) if info["type"] == "directory" else {name: listed(info)}
    if not files:
        raise InputError(
            f"{pattern}: no such file. Expected raw logs (.csv or .csv.gz): a path, a glob or a folder."
        )
    for name in files:
        if not name.endswith(ENDINGS):
            raise InputError(f"{name}: expected a name that ends with .csv or .csv.gz.")
    return {fs.unstrip_protocol(name): file for name, file in files.items()}


def _matches(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """What has this very name, which may hold [ or ?, and where nothing has, what it stands for as a glob."""
    if any(char in path for char in "*?[") and fs.exists(path):
        return {path: fs.info(path)}
    return cast(dict[str, dict[str, Any]], fs.glob(path, detail=True))


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _in_folder(fs: Any, folder: str, common: bool) -> dict[str, Listed]:
    """The files of one side in a folder: all of them, or those with its name where names tell the sides."""
    files = dict(_walk(fs, folder))
    parts = {name: name.removeprefix(folder).split("/") for name in files}
    mine, other = (COMMON_PREFIX, SKELETON_PREFIX) if common else (SKELETON_PREFIX, COMMON_PREFIX)
    if not any(part.startswith((mine, other)) for name in files for part in parts[name]):
        return files
    own = [name for name in files if any(part.startswith(mine) for part in parts[name])]
    if not own:
        raise InputError(f"{folder}: expected {mine}* in this folder, found only {other}*.")
    _refuse_both_halves(folder, mine, {part for name in own for part in parts[name]})
    return {name: files[name] for name in own}


def _walk(fs: Any, folder: str) -> Iterator[tuple[str, Listed]]:
    """Every file below a folder. fsspec's own walk leaves out what it can't list."""
    for info in fs.ls(folder, detail=True):
        name = info["name"].rstrip("/")
        if name == folder.rstrip("/") or _is_hidden(name.rpartition("/")[2]):
            continue
        if info["type"] == "directory":
            yield from _walk(fs, name)
        else:
            yield name, listed(info)


def _refuse_both_halves(folder: str, prefix: str, names: set[str]) -> None:
    if all(any(name.startswith(f"{prefix}_{half}") for name in names) for half in ("train", "test")):
        raise InputError(
            f"{folder}: found both {prefix}_train and {prefix}_test, which would become one set of samples. "
            f"Choose one of them: '{folder}/{prefix}_train*'."
        )


def _with_lines(files: dict[str, Listed], common: bool) -> list[tuple[str, Listed]]:
    """The files that are not empty; an `InputError` names the first one that can't be raw logs."""
    with ThreadPoolExecutor(HEAD_THREADS) as pool:
        states = dict(zip(files, pool.map(partial(_state, common=common), files.items()), strict=True))
    wrong = [state for state in states.values() if isinstance(state, InputError)]
    if wrong:
        others = f" ({len(wrong) - 1} more of {len(files)} files are wrong too.)" if len(wrong) > 1 else ""
        raise InputError(f"{wrong[0]}{others}")
    empty = [path for path, state in states.items() if not state]
    if len(empty) == len(files):
        found = "the file is empty" if len(files) == 1 else f"all {len(files)} files are empty"
        raise InputError(f"{empty[0]}: {found}, there is nothing to read. Fetch the logs again.")
    if empty:
        LOG.warning("left out %d empty files of %d, the first is %s", len(empty), len(files), empty[0])
    return [(path, file) for path, file in files.items() if states[path]]


def _state(file: tuple[str, Listed], common: bool) -> bool | InputError:
    try:
        return has_lines(*file, common)
    except InputError as error:
        return error


def open_log(file: LogFile, block_size: int = CHUNK_BYTES) -> IO[bytes]:
    """The uncompressed bytes of a raw file; an `InputError` where it is not what was listed."""
    stream = open_as_listed(file.path, Listed(file.size, file.version), block_size)
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if file.compressed else stream


def files_to_json(files: list[LogFile]) -> str:
    return json.dumps([astuple(file) for file in files])


def files_from_json(text: str) -> list[LogFile]:
    return [LogFile(*entry) for entry in json.loads(text)]
