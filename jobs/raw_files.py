"""The raw log files of a job: found, checked by their first bytes, opened."""

import argparse
import gzip
import json
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, cast

from jobs.raw_heads import has_lines
from schemas import storage
from schemas.errors import InputError

LOG = logging.getLogger(__name__)

CHUNK_BYTES = 8 << 20
HEAD_THREADS = 16  # a head costs a round trip on a remote file system, not work here
ENDINGS = (".csv", ".csv.gz")
SKELETON_PREFIX, COMMON_PREFIX = "sample_skeleton", "common_features"

FILES_HELP = (
    "files, globs or folders, .csv and .csv.gz mixed. A folder stands for all files below it, or only for "
    f"those of this side where names begin with {SKELETON_PREFIX} and {COMMON_PREFIX}. "
    "Names that begin with _ or . are left out"
)


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


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name the raw logs of a command."""
    parser.add_argument(
        "--skeleton", required=True, nargs="+", metavar="PATH", help=f"sample skeletons: {FILES_HELP}"
    )
    parser.add_argument(
        "--common", required=True, nargs="+", metavar="PATH", help="common features, in the same way"
    )


def find_logs(skeleton: str | list[str], common: str | list[str]) -> list[LogFile]:
    """The raw files of both sides, common records first, each side in natural order of the paths.

    Both arguments: a path or glob of files or folders, or several of them. A file reached twice counts
    once, empty ones are left out. The first bytes of each are checked: see `jobs.raw_heads`.
    """
    found = [(path, True, size) for path, size in _find_side(common, True)]
    found += [(path, False, size) for path, size in _find_side(skeleton, False)]
    return [LogFile(number, *entry) for number, entry in enumerate(found)]


def _find_side(given: str | list[str], common: bool) -> list[tuple[str, int]]:
    """Path and size of the files of one side that hold any line."""
    sizes: dict[str, int] = {}
    for pattern in [given] if isinstance(given, str) else given:
        sizes |= _expand(pattern, common)
    paths = _each_once(sorted(sizes, key=natural_order))
    full = _with_lines(paths, common)
    if not full:
        found = "the file is empty" if len(paths) == 1 else f"all {len(paths)} files are empty"
        raise InputError(f"{paths[0]}: {found}, there is nothing to read. Fetch the logs again.")
    return [(path, sizes[path]) for path in full]


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


def _expand(pattern: str, common: bool) -> dict[str, int]:
    """The files of a path or glob with their sizes; an `InputError` where there is none."""
    fs, path = storage.filesystem(pattern)
    matches: dict[str, dict[str, Any]] = fs.glob(path, detail=True)
    sizes: dict[str, int] = {}
    for name, info in matches.items():
        if name != path and _is_hidden(name.rpartition("/")[2]):
            continue
        sizes |= _in_folder(fs, name, common) if info["type"] == "directory" else {name: int(info["size"])}
    if not sizes:
        raise InputError(
            f"{pattern}: no such file. Expected raw logs (.csv or .csv.gz): a path, a glob or a folder."
        )
    for name in sizes:
        if not name.endswith(ENDINGS):
            raise InputError(f"{name}: expected a name that ends with .csv or .csv.gz.")
    return {fs.unstrip_protocol(name): size for name, size in sizes.items()}


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _in_folder(fs: Any, folder: str, common: bool) -> dict[str, int]:
    """The files of one side in a folder: all of them, or those with its name where names tell the sides."""
    sizes = dict(_walk(fs, folder))
    parts = {name: name.removeprefix(folder).split("/") for name in sizes}
    mine, other = (COMMON_PREFIX, SKELETON_PREFIX) if common else (SKELETON_PREFIX, COMMON_PREFIX)
    if not any(part.startswith((mine, other)) for name in sizes for part in parts[name]):
        return sizes
    own = [name for name in sizes if any(part.startswith(mine) for part in parts[name])]
    if not own:
        raise InputError(f"{folder}: expected {mine}* in this folder, found only {other}*.")
    _refuse_both_halves(folder, mine, {part for name in own for part in parts[name]})
    return {name: sizes[name] for name in own}


def _walk(fs: Any, folder: str) -> Iterator[tuple[str, int]]:
    """Every file below a folder with its size. fsspec's own walk leaves out what it can't list."""
    for info in fs.ls(folder, detail=True):
        name = info["name"].rstrip("/")
        if name == folder.rstrip("/") or _is_hidden(name.rpartition("/")[2]):
            continue
        if info["type"] == "directory":
            yield from _walk(fs, name)
        else:
            yield name, int(info["size"])


def _refuse_both_halves(folder: str, prefix: str, names: set[str]) -> None:
    if all(any(name.startswith(f"{prefix}_{half}") for name in names) for half in ("train", "test")):
        raise InputError(
            f"{folder}: found both {prefix}_train and {prefix}_test, which would become one set of samples. "
            f"Choose one of them: '{folder}/{prefix}_train*'."
        )


def _with_lines(paths: list[str], common: bool) -> list[str]:
    """The files that are not empty; an `InputError` names the first one that can't be raw logs."""
    with ThreadPoolExecutor(HEAD_THREADS) as pool:
        states = list(pool.map(partial(_state, common=common), paths))
    wrong = [state for state in states if isinstance(state, InputError)]
    if wrong:
        others = f" ({len(wrong) - 1} more of {len(paths)} files are wrong too.)" if len(wrong) > 1 else ""
        raise InputError(f"{wrong[0]}{others}")
    full = [path for path, state in zip(paths, states, strict=True) if state]
    if 0 < len(full) < len(paths):
        first = next(path for path in paths if path not in full)
        LOG.warning(
            "left out %d empty files of %d, the first is %s", len(paths) - len(full), len(paths), first
        )
    return full


def _state(path: str, common: bool) -> bool | InputError:
    try:
        return has_lines(path, common)
    except InputError as error:
        return error


def open_log(file: LogFile) -> IO[bytes]:
    """The uncompressed bytes of a raw file."""
    fs, path = storage.filesystem(file.path)
    stream = fs.open(path, "rb", block_size=CHUNK_BYTES)
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream) if file.compressed else stream)


def files_to_json(files: list[LogFile]) -> str:
    return json.dumps([[f.number, f.path, f.common, f.size] for f in files])


def files_from_json(text: str) -> list[LogFile]:
    return [LogFile(*entry) for entry in json.loads(text)]
