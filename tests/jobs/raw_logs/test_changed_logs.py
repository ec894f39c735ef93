"""Raw files that change between the listing and the tasks: no line may be lost without a word."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.errors import InputError
from jobs import build_samples
from jobs.raw_logs import chunks
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.source import read_range, split_ranges
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from tests.fixtures.ali_ccp import ALI_CCP
from tests.fixtures.raw_lines import random_logs, write_logs


def shorten(content: bytes) -> bytes:
    return content[: content.index(b"\n", len(content) // 2) + 1]


def lengthen(content: bytes) -> bytes:
    return content + content[: content.index(b"\n") + 1]


def exchange(content: bytes) -> bytes:
    """Other lines, as many bytes."""
    return content.replace(b",0,0,", b",1,0,")


def write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_all(files: list[raw_files.LogFile]) -> bytes:
    return b"".join(chunk.lines for task in split_ranges(files, 1000) for chunk in read_range(task))


@pytest.fixture(params=[".csv", ".csv.gz"])
def skeleton(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A skeleton beside its common features, last written long ago."""
    plain = Path(write_logs(tmp_path, random_logs(seed=11, num_contexts=20))[0])
    path = plain.with_suffix(request.param)
    content = plain.read_bytes()
    plain.unlink()
    write(path, content)
    os.utime(path, (1e9, 1e9))
    return path


def content_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            shorten,
            "it changed while the job was running: expected {before} bytes .* found {after}. Wait until",
        ),
        (
            lengthen,
            "it changed while the job was running: expected {before} bytes .* found {after}. Wait until",
        ),
    ],
)
def test_a_file_of_another_size_than_listed_is_refused(
    spark, skeleton: Path, change: Callable[[bytes], bytes], message: str
):
    files = raw_files.find_logs(str(skeleton), str(skeleton.parent / "common_features.csv"))
    before = skeleton.stat().st_size
    write(skeleton, change(content_of(skeleton)))
    expected = message.format(before=before, after=skeleton.stat().st_size)
    with pytest.raises(InputError, match=f"{skeleton.name}: {expected}"):
        read_all(files)
    out = skeleton.parent / "out"
    with pytest.raises(InputError, match=f"{skeleton.name}: {expected}"):
        build_samples.run(spark, TextLogs(files), ALI_CCP, SamplesConfig(), str(out), overwrite=False)
    assert not out.exists()


def test_a_file_replaced_by_one_of_the_same_size_is_refused(tmp_path: Path):
    paths = write_logs(tmp_path, random_logs(seed=11, num_contexts=20))
    skeleton = Path(paths[0])
    os.utime(skeleton, (1e9, 1e9))
    files = raw_files.find_logs(*paths)
    read_all(files)
    size = skeleton.stat().st_size
    write(skeleton, exchange(content_of(skeleton)))
    assert skeleton.stat().st_size == size
    with pytest.raises(
        InputError, match=f"skeleton.csv: it was replaced .* expected its {size} bytes of version"
    ):
        read_all(files)


def test_a_file_removed_meanwhile_is_named(skeleton: Path):
    files = raw_files.find_logs(str(skeleton), str(skeleton.parent / "common_features.csv"))
    skeleton.unlink()
    with pytest.raises(InputError, match=f"{skeleton.name}: it was listed, but is not there"):
        read_all(files)


def test_a_file_cut_while_it_is_read_is_refused(tmp_path: Path):
    paths = write_logs(tmp_path, random_logs(seed=11, num_contexts=20))
    skeleton = Path(paths[0])
    (file,) = (file for file in raw_files.find_logs(*paths) if not file.common)
    last = split_ranges([file], file.size // 2)[1]
    with raw_files.open_log(file) as stream:
        os.truncate(skeleton, last.begin - 500)
        with pytest.raises(EOFError, match="it ends at byte"):
            list(chunks.read_chunks(stream, last.begin, last.end))


def test_a_file_that_was_empty_and_is_written_meanwhile_is_refused(tmp_path: Path, monkeypatch):
    """It would be left out as an empty one, or have no ranges."""
    paths = write_logs(tmp_path, random_logs(seed=11, num_contexts=20))
    late = tmp_path / "sample_skeleton_late.csv"
    late.touch()
    listing = raw_files._find_side

    def list_then_write(given: str | list[str], common: bool):
        found = listing(given, common)
        if not common:
            late.write_bytes(Path(paths[0]).read_bytes())
        return found

    monkeypatch.setattr(raw_files, "_find_side", list_then_write)
    with pytest.raises(InputError, match="late.csv: it changed .* expected 0 bytes"):
        raw_files.find_logs([paths[0], str(late)], paths[1])
