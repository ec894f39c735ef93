"""What only shows in quantity: a validation part, one hot context, many lines without their record."""

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs import build_samples
from jobs.raw_logs import files as raw_files
from jobs.raw_logs import packed_rows
from jobs.raw_logs.text_logs import TextLogs
from jobs.sample_writer import quarantine_file
from jobs.samples_config import SamplesConfig
from schemas import manifest
from schemas.hashing import bucket
from schemas.quarantine import QUARANTINE_FOLDER
from storage.hdfs import Hdfs
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import RawLogs, feature, impressions_of_samples, random_logs, write_logs

BUCKETS = {f.name: 1000 for f in FIELDS}
SETTINGS = SamplesConfig(
    buckets=BUCKETS, impressions_per_row=100, rows_per_row_group=7, raw_bytes_per_file=40_000
)


def read(folder: Path) -> pa.Table:
    return pq.read_table(sorted(str(path) for path in folder.glob("part-*.parquet")))


def build(
    spark, logs: tuple[str, str], out: Path, valid: Path | None = None, **settings
) -> manifest.Manifest:
    text = TextLogs(raw_files.find_logs(*logs))
    changed = SETTINGS.model_copy(update=settings)
    build_samples.run(spark, text, ALI_CCP, changed, str(out), False, str(valid) if valid else None)
    return manifest.read(str(out))


def test_a_context_is_in_the_validation_part_or_in_the_training_part(spark, tmp_path):
    logs = random_logs(seed=7, num_contexts=300)
    paths = write_logs(tmp_path, logs)
    with open(paths[0], "a") as stream:
        stream.write("broken\n")
    whole = build(
        spark, paths, tmp_path / "whole", valid_share=0.2
    )  # no folder for it, so nothing is kept out
    train = build(spark, paths, tmp_path / "train", tmp_path / "valid", valid_share=0.2)
    valid = manifest.read(str(tmp_path / "valid"))
    assert train["fingerprint"] == valid["fingerprint"] == whole["fingerprint"]
    assert train["quarantine"] == {"wrong_column_count": 1}
    assert valid["quarantine"] == {}
    for key in ("contexts", "impressions", "clicks"):
        assert train["counts"][key] + valid["counts"][key] == whole["counts"][key]
    parts = [set(read(tmp_path / part)["context_id"].to_pylist()) for part in ("train", "valid")]
    assert parts[1] == {c for c in parts[0] | parts[1] if _slot(c) < 200_000}
    assert parts[1]
    both = [impressions_of_samples(read(tmp_path / part)) for part in ("train", "valid")]
    assert both[0] | both[1] == impressions_of_samples(read(tmp_path / "whole"))


def _slot(context_id: str) -> int:
    """The hash of the split, by the Python implementation of the same hash."""
    return bucket("validation", int(context_id, 16), 1_000_001, SETTINGS.hash_seed) - 1


def test_a_validation_folder_without_a_share_is_refused():
    with pytest.raises(InputError, match="--valid-out there: expected samples.valid_share above 0"):
        build_samples.check_validation(SamplesConfig(), "there")


def hot_logs(impressions: int) -> RawLogs:
    """One context with nearly all impressions, which all ask for the same item, among a few others."""
    logs = random_logs(seed=8, num_contexts=20)
    hot = logs.common[0].split(",")[0]
    for sample_id in range(1_000_000, 1_000_000 + impressions):
        logs.skeleton.append(f"{sample_id},0,0,{hot},1,{feature('205', 77, '1.0')}")
    return logs


@pytest.mark.parametrize("impressions", [30_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_one_hot_context_loses_nothing(spark, tmp_path, impressions):
    paths = write_logs(tmp_path, hot_logs(impressions))
    made = build(spark, paths, tmp_path / "out", raw_bytes_per_file=1 << 20)
    table = read(tmp_path / "out").select(["sample_id", "item_205"])
    hot = [i for ids in table["sample_id"].to_pylist() for i in ids if i >= 1_000_000]
    assert hot == list(range(1_000_000, 1_000_000 + impressions))
    assert max(map(len, table["sample_id"].to_pylist())) == 100
    assert made["quarantine"] == {}


def test_lines_without_their_record_are_read_again_where_one_can_seek(spark, tmp_path):
    logs = random_logs(seed=9, num_contexts=400)
    random.Random(1).shuffle(logs.skeleton)
    missing = {line.split(",")[0] for line in logs.common[:40]}
    orphans = {line.encode() for line in logs.skeleton if line.split(",")[3] in missing}
    logs.common = logs.common[40:]
    paths = write_logs(tmp_path, logs)
    text = Path(paths[0]).read_bytes()
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    (zipped / "skeleton.csv.gz").write_bytes(gzip.compress(text))
    for name, skeleton, fetched in (
        ("plain", paths[0], True),
        ("gz", str(zipped / "skeleton.csv.gz"), False),
    ):
        made = build(spark, (skeleton, paths[1]), tmp_path / name, max_broken_share=0.5)
        assert made["quarantine"] == {"no_common_record": len(orphans)}
        folder = tmp_path / name / QUARANTINE_FOLDER
        lines = pq.read_table(sorted(str(path) for path in folder.iterdir())).to_pylist()
        assert {text[line["offset"] :].split(b"\n")[0] for line in lines} == orphans
        assert {line["text"] for line in lines} == (orphans if fetched else {None})


def test_only_the_first_texts_are_read_again(tmp_path, monkeypatch):
    logs = random_logs(seed=9, num_contexts=40)
    paths = write_logs(tmp_path, logs)
    files = raw_files.find_logs(*paths)
    (skeleton,) = (file for file in files if not file.common)
    text = Path(paths[0]).read_bytes()
    offsets = [0] + [i + 1 for i, byte in enumerate(text[:-1]) if byte == 10]
    monkeypatch.setattr(quarantine_file, "MOST_FETCHED", 5)
    file = quarantine_file.QuarantineFile(str(tmp_path / "q" / "x.parquet"), files)
    for offset in reversed(offsets):
        order = (skeleton.number << packed_rows.OFFSET_BITS) + offset
        file.add(quarantine_file.Rejected(np.array([13], np.int8), np.array([order])))
    assert file.close() == {"no_common_record": len(offsets)}
    found = pq.read_table(tmp_path / "q" / "x.parquet").to_pylist()
    assert [line["offset"] for line in found] == offsets
    assert [line["text"] for line in found] == [*text.split(b"\n")[:5], *[None] * (len(offsets) - 5)]


MANY_REJECTED = """
import resource, sys
import numpy as np
from jobs.sample_writer.quarantine_file import QuarantineFile, Rejected
from jobs.raw_logs.files import LogFile
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS

path, lines = sys.argv[1], int(sys.argv[2])
file = QuarantineFile(path, [LogFile(0, "file:///logs/ds=2025-11-22/sample_skeleton.csv.gz", False, 1)])
file.add(Rejected(np.array([13], np.int8), np.array([0]), [b"warm up"]))
file._flush()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for begin in range(0, lines, 10_000):
    file.add(Rejected(np.full(10_000, 13, np.int8), np.arange(begin, begin + 10_000)[::-1].copy()))
file.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_lines_rejected_behind_the_shuffle_take_few_bytes_each(tmp_path):
    """18 each at most, beside the pieces in which they are written: one hot context may have millions."""
    path, lines = str(tmp_path / "q" / "x.parquet"), 5_000_000
    script = [sys.executable, "-c", MANY_REJECTED, path, str(lines)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 200e6
    found = pq.read_table(path, columns=["offset", "reason"])
    assert np.array_equal(found["offset"].to_numpy()[1:], np.arange(lines))
    assert found["reason"].unique().to_pylist() == ["no_common_record"]


class RangesOfHdfs(Hdfs):
    """The client of HDFS over files of this machine: it counts what it would ask of a namenode and of
    datanodes. What it asks is its own code."""

    def __init__(self) -> None:
        self.fetched, self.asked = [], 0
        super().__init__("namenode", 8020, None)
        self.client = self

    def get_file_info(self, path: str) -> SimpleNamespace:
        self.asked += 1
        times = {"modification_time": 0, "access_time": 0}
        owner = {"permission": 0, "owner": "", "group": ""}
        return SimpleNamespace(path=path, length=os.path.getsize(path), isdir=False, **times, **owner)

    def read(self, path: str) -> "Ranges":
        self.asked += 1
        return Ranges(path, self.fetched)


class Ranges:
    """A file as hdfs-native reads it."""

    def __init__(self, path: str, fetched: list[int]) -> None:
        self.path, self.fetched = path, fetched

    def __len__(self) -> int:
        return os.path.getsize(self.path)

    def read_range(self, begin: int, length: int) -> bytes:
        self.fetched.append(length)
        with open(self.path, "rb") as stream:
            stream.seek(begin)
            return stream.read(length)


def test_a_text_read_again_over_hdfs_costs_a_block_of_64_kib_and_its_next(tmp_path, monkeypatch):
    line = b"%09d," + b"x" * 229 + b"\n"
    path = tmp_path / "sample_skeleton.csv"
    path.write_bytes(b"".join(line % i for i in range(100_000)))
    hdfs = RangesOfHdfs()
    url = f"hdfs://namenode:8020{path}"
    monkeypatch.setattr(Hdfs, "of", lambda url: (hdfs, str(path)))
    places = list(range(0, 100_000, 500))
    file = quarantine_file.QuarantineFile(
        str(tmp_path / "q" / "x.parquet"), [raw_files.LogFile(0, url, False, path.stat().st_size)]
    )
    file.add(quarantine_file.Rejected(np.full(len(places), 13, np.int8), np.array(places) * 240))
    file.close()
    texts = pq.read_table(tmp_path / "q" / "x.parquet")["text"].to_pylist()
    assert texts == [(line % i).rstrip(b"\n") for i in places]
    assert sum(hdfs.fetched) <= len(places) * (128 << 10)
    assert hdfs.asked == 2, "one to open the file, one to compare it with its listing"
