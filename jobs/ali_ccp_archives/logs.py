"""The four logs of Ali-CCP: found in a folder, unpacked, checked against what is known of them."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.errors import InputError
from jobs.ali_ccp_archives.archives import CopyProgress, Counted, count, unpack_gzip, unpack_tar
from storage.json_files import read_json, write_json
from storage.locks import require_only_run

LOG = logging.getLogger(__name__)

HOW_TO_GET = (
    "Log in at https://tianchi.aliyun.com/dataset/408, accept the licence, download sample_train.tar.gz and "
    "sample_test.tar.gz (about 9 GB) into this folder, and run the command again."
)
RECORD_NAME = "_ali_ccp.json"  # what was counted in each file, so that it is read only once
SIZE_TOLERANCE = 0.2  # sizes are known in round numbers, rows exactly


@dataclass(frozen=True)
class Half:
    """What is known of one half: its archive, rows and gigabytes of its files, labels of its samples."""

    archive: str
    files: dict[str, tuple[int, float]]
    labels: dict[str, int]


# From the ESMM paper and public projects that read the full data; docs/ali_ccp.md. Impressions are the
# rows without those that have a conversion but no click.
HALVES: dict[str, Half] = {
    "train": Half(
        "sample_train.tar.gz",
        {"sample_skeleton_train.csv": (42_300_135, 10.9), "common_features_train.csv": (730_600, 8.6)},
        {"impressions": 42_299_905, "clicks": 1_644_256, "conversions": 8_802},
    ),
    "test": Half(
        "sample_test.tar.gz",
        {"sample_skeleton_test.csv": (43_016_840, 10.0), "common_features_test.csv": (884_212, 10.0)},
        {"impressions": 43_016_614, "clicks": 1_673_447, "conversions": 9_195},
    ),
}


@dataclass(frozen=True)
class ArchiveSource:
    """A file in the raw folder, and the logs it holds: an archive, a .csv.gz or an unpacked .csv."""

    path: Path
    names: tuple[str, ...]

    @property
    def packed(self) -> bool:
        return self.path.name.endswith(".gz")

    def read(self, folder: Path, progress: CopyProgress) -> dict[str, Counted]:
        """Count the logs, and unpack them into `folder` unless they are."""
        if self.path.name.endswith(".tar.gz"):
            return unpack_tar(self.path, set(self.names), folder, progress)
        (name,) = self.names
        if self.packed:
            return {name: unpack_gzip(self.path, folder / name, progress)}
        return {name: count(self.path, progress)}


def find_sources(raw: Path) -> list[ArchiveSource]:
    """Where each of the four logs comes from: unpacked, else compressed, else from an archive."""
    if not raw.is_dir():
        raise InputError(f"{raw}: expected a folder with the Ali-CCP archives, found none. {HOW_TO_GET}")
    found = []
    missing = []
    for half in HALVES.values():
        packed = []
        for name in half.files:
            paths = [path for path in _places(raw, name) if path.is_file()]
            found += [ArchiveSource(path, (name,)) for path in paths[:1]]
            packed += [] if paths else [name]
        if packed and (raw / half.archive).is_file():
            found.append(ArchiveSource(raw / half.archive, tuple(packed)))
        elif packed:
            missing.append(f"neither {half.archive} nor {' and '.join(packed)}")
    if missing:
        raise InputError(
            f"{raw}: expected the Ali-CCP archives or the logs in them (.csv, .csv.gz), found "
            f"{'; '.join(missing)}. {HOW_TO_GET}"
        )
    return found


def _places(raw: Path, name: str) -> Iterator[Path]:
    """Where a log may lie, the best place first; archives may unpack into a folder of their own."""
    for ending in ("", ".gz"):
        yield raw / f"{name}{ending}"
        yield from sorted(raw.glob(f"*/{name}{ending}"))


def unpack(raw: Path, sources: list[ArchiveSource]) -> dict[str, tuple[Path, Counted]]:
    """All logs unpacked, side by side as far as there are cores: by name the path and what is in it."""
    record = _Record(raw)
    done = {s.names[0]: (s.path, known) for s in sources if (known := record.known(s.path))}
    todo = [source for source in sources if source.names[0] not in done]
    num_bytes = sum(source.path.stat().st_size for source in todo)
    with (
        only_run(raw),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        CopyProgress(num_bytes, "reading the archives") as progress,
    ):
        jobs = {pool.submit(source.read, raw, progress): source for source in todo}
        for job in as_completed(jobs):
            for name, counted in job.result().items():
                path = raw / name if jobs[job].packed else jobs[job].path
                record.add(path, counted)
                done[name] = (path, counted)
    return done


def only_run(raw: Path) -> AbstractContextManager[None]:
    """Two runs would write the same files."""
    return require_only_run(raw, "another run is reading the archives here. Wait until it is done.")


class _Record:
    """What was counted in unpacked logs, kept beside them; it holds while size and time are unchanged."""

    def __init__(self, raw: Path) -> None:
        self._path = raw / RECORD_NAME
        self._writable = os.access(raw, os.W_OK)
        self._entries = read_json(str(self._path)) if self._path.exists() else {}

    def known(self, path: Path) -> Counted | None:
        entry = self._entries.get(str(path))
        return Counted(**entry["counted"]) if entry and entry["state"] == self._state(path) else None

    def add(self, path: Path, counted: Counted) -> None:
        self._entries[str(path)] = {"counted": asdict(counted), "state": self._state(path)}
        if self._writable:
            write_json(str(self._path), self._entries)

    @staticmethod
    def _state(path: Path) -> list[int]:
        info = path.stat()
        return [info.st_size, info.st_mtime_ns]


def check_files(found: dict[str, Counted], halves: dict[str, Half], allow_differences: bool) -> None:
    """Compare rows and sizes with what is known; stop at differences unless they are allowed."""
    wrong = []
    for name, (rows, gigabytes) in (item for half in halves.values() for item in half.files.items()):
        counted = found[name]
        text = (
            f"{name}: expected {rows:,} rows and about {gigabytes} GB, "
            f"found {counted.rows:,} rows and {counted.bytes / 1e9:.2f} GB"
        )
        same = counted.rows == rows and abs(counted.bytes / 1e9 / gigabytes - 1) <= SIZE_TOLERANCE
        if same:
            LOG.info("%s: ok", text)
        else:
            wrong.append(text)
    report(wrong, "the logs are not those of Ali-CCP as known", "Fetch the archives again", allow_differences)


def report(wrong: list[str], what: str, advice: str, allow_differences: bool) -> None:
    if wrong and not allow_differences:
        lines = "".join(f"\n  {text}" for text in wrong)
        raise InputError(f"{what}:{lines}\n{advice}, or go on all the same with --allow-differences.")
    for text in wrong:
        LOG.warning("%s", text)
