"""The whole job on real Spark: contents, quarantine with counts, publishing, bad input."""

import gzip
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs import build_samples
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import manifest, samples
from schemas.quarantine import QUARANTINE_FOLDER
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import (
    RawLogs,
    expected_impressions,
    impressions_of_samples,
    random_logs,
    write_logs,
)

BUCKETS = {f.name: 1000 for f in FIELDS}
SETTINGS = SamplesConfig(
    buckets=BUCKETS, impressions_per_row=5, rows_per_row_group=7, raw_bytes_per_file=40_000
)


def read(folder: Path):
    return pq.read_table(sorted(str(p) for p in folder.glob("part-*.parquet")))


def build(
    spark, skeleton: str, common: str, out: Path, settings: SamplesConfig = SETTINGS
) -> manifest.Manifest:
    build_samples.run(
        spark, TextLogs(raw_files.find_logs(skeleton, common)), ALI_CCP, settings, str(out), overwrite=False
    )
    return manifest.read(str(out))


@pytest.fixture(scope="module")
def broken_logs():
    """Logs with one line for every way in which a line of real files is known to break."""
    logs = random_logs(seed=11, num_contexts=60)
    context = logs.common[0].split(",")[0]
    bad = {
        "conversion_without_click": f"900001,0,1,{context},0,",
        "no_common_record": "900002,1,0,ffffffffffffffff,1,205\x025\x031.0",
        "wrong_column_count": "900003,1,0",
        "feature_count_mismatch": f"900004,1,0,{context},3,205\x025\x031.0",
        "empty_id": f"900005,1,0,{context},1,205\x02\x031.0",
        "bad_number": f"x,1,0,{context},0,",
    }
    return logs, bad


@pytest.fixture(scope="module")
def built(spark, broken_logs, tmp_path_factory):
    """Samples of the good and the broken lines together."""
    logs, bad = broken_logs
    folder = tmp_path_factory.mktemp("built")
    skeleton, common = write_logs(folder, logs)
    with open(skeleton, "a") as stream:
        stream.write("".join(line + "\n" for line in bad.values()) + "900007,1,0,00ff")
    with open(common, "a") as stream:
        stream.write(logs.common[3] + "\n")
    out = folder / "samples"
    settings = SETTINGS.model_copy(update={"max_broken_share": 0.2})
    return out, build(spark, skeleton, common, out, settings)


def test_samples_equal_a_plain_reading_of_the_logs(built, broken_logs):
    out, _ = built
    table = read(out)
    assert table.schema.equals(samples.arrow_schema(ALI_CCP))
    found, expected = impressions_of_samples(table), expected_impressions(broken_logs[0], BUCKETS, 0)
    assert found.keys() == expected.keys()
    for sample_id, impression in expected.items():
        for name, values in impression["fields"].items():
            assert [i for i, _ in found[sample_id]["fields"][name]] == [i for i, _ in values]
            assert [w for _, w in found[sample_id]["fields"][name]] == pytest.approx(
                [w for _, w in values], rel=1e-6
            )
        assert {k: v for k, v in found[sample_id].items() if k != "fields"} == {
            k: v for k, v in impression.items() if k != "fields"
        }


def test_every_broken_line_is_in_the_quarantine_with_reason_place_and_text(built, broken_logs):
    out, made = built
    logs, bad = broken_logs
    lines = pq.read_table(sorted(str(p) for p in (out / QUARANTINE_FOLDER).iterdir())).to_pylist()
    expected = {(reason, line.encode()) for reason, line in bad.items()}
    expected |= {("truncated_line", b"900007,1,0,00ff"), ("duplicate_common_record", logs.common[3].encode())}
    assert {(line["reason"], line["text"]) for line in lines} == expected
    assert made["quarantine"] == dict.fromkeys(sorted(reason for reason, _ in expected), 1)
    for line in lines:
        content = Path(line["file"].removeprefix("file://")).read_bytes()
        assert content[line["offset"] :].split(b"\n")[0] == line["text"]


def test_the_manifest_counts_what_is_in_the_files(built):
    out, made = built
    table = read(out)
    ids = table["sample_id"].to_pylist()
    assert made["counts"]["rows"] == table.num_rows
    assert made["counts"]["impressions"] == sum(map(len, ids))
    assert made["counts"]["contexts"] == len(set(table["context_id"].to_pylist()))
    assert made["counts"]["clicks"] == sum(sum(row) for row in table["click"].to_pylist())
    assert made["counts"]["conversions"] == sum(sum(row) for row in table["conversion"].to_pylist())
    for file in made["files"]:
        parquet = pq.ParquetFile(out / file["name"])
        groups = [parquet.read_row_group(i) for i in range(parquet.num_row_groups)]
        assert file["rows"] == [g.num_rows for g in groups]
        assert file["impressions"] == [sum(map(len, g["sample_id"].to_pylist())) for g in groups]
        assert file["bytes"] == (out / file["name"]).stat().st_size


def with_few_ids(logs: RawLogs) -> RawLogs:
    """The same with ids of one digit: to gzip they are about as dense as real logs, which repeat theirs."""
    short = [
        [re.sub("\x02[0-9]*([0-9])\x03", "\x02\\1\x03", line) for line in side]
        for side in (logs.skeleton, logs.common)
    ]
    return RawLogs(*short)


def test_other_tasks_and_compressed_parts_give_the_same_files(spark, tmp_path):
    """Cut into other byte ranges, or into compressed part files, the logs give the same bytes."""
    logs = with_few_ids(random_logs(seed=5, num_contexts=80))
    skeleton, common = write_logs(tmp_path, logs)
    settings = SETTINGS.model_copy(update={"raw_bytes_per_file": 30_000})
    build(spark, skeleton, common, tmp_path / "one", settings)
    parts = tmp_path / "parts"
    parts.mkdir()
    half = len(logs.skeleton) // 2
    for name, lines in (("s-0", logs.skeleton[:half]), ("s-1", logs.skeleton[half:]), ("c-0", logs.common)):
        (parts / f"{name}.csv.gz").write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    build(spark, f"{parts}/s-*.csv.gz", f"{parts}/c-*.csv.gz", tmp_path / "two", settings)
    one, two = manifest.read(str(tmp_path / "one")), manifest.read(str(tmp_path / "two"))
    assert len(one["files"]) > 1
    assert one["counts"] == two["counts"]
    assert one["files"] == two["files"]
    assert read(tmp_path / "one").equals(read(tmp_path / "two"))


def test_too_many_broken_lines_stop_the_job_and_keep_the_lines(spark, broken_logs, tmp_path):
    logs, bad = broken_logs
    skeleton, common = write_logs(tmp_path, logs)
    with open(skeleton, "a") as stream:
        stream.write("".join(line + "\n" for line in bad.values()))
    strict = SETTINGS.model_copy(update={"max_broken_share": 0.001})
    with pytest.raises(InputError, match=r"6 of \d+ lines are broken.*\n.*bad_number: 1 ") as error:
        build(spark, skeleton, common, tmp_path / "out", strict)
    assert not (tmp_path / "out").exists()
    rejected = tmp_path / "_rejected" / "out"
    assert str(rejected) in str(error.value)
    kept = pq.read_table(sorted(str(p) for p in rejected.iterdir()))
    assert sorted(kept["text"].to_pylist()) == sorted(line.encode() for line in bad.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "_rejected",
        "common_features.csv",
        "sample_skeleton.csv",
    ]
    write_logs(tmp_path, logs)
    build(spark, skeleton, common, tmp_path / "out", strict)
    assert not rejected.exists(), "removed where the mended logs were built"


def test_a_failing_task_publishes_nothing_and_leaves_nothing(spark, tmp_path):
    logs = random_logs(seed=5, num_contexts=10)
    skeleton, common = write_logs(tmp_path, logs)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(Path(skeleton).read_bytes())[:-40])
    with pytest.raises(InputError, match=r"cut\.csv\.gz.*end-of-stream"):
        build(spark, str(cut), common, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "common_features.csv",
        "cut.csv.gz",
        "sample_skeleton.csv",
    ]


def test_published_samples_are_not_replaced_unless_asked(spark, tmp_path):
    skeleton, common = write_logs(tmp_path, random_logs(seed=5, num_contexts=10))
    out = tmp_path / "out"
    build(spark, skeleton, common, out)
    files = raw_files.find_logs(skeleton, common)
    with pytest.raises(InputError, match="--overwrite"):
        build_samples.run(spark, TextLogs(files), ALI_CCP, SETTINGS, str(out), overwrite=False)
    before = read(out)
    build_samples.run(spark, TextLogs(files), ALI_CCP, SETTINGS, str(out), overwrite=True)
    assert read(out).equals(before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["common_features.csv", "out", "sample_skeleton.csv"]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("out", ["day", "day/..", "day/thesis.txt"])
def test_overwriting_takes_neither_the_logs_nor_anything_else_of_the_user(spark, tmp_path, out):
    day = tmp_path / "days" / "day"
    day.mkdir(parents=True)
    skeleton, common = write_logs(day, random_logs(seed=5, num_contexts=10))
    (day / "thesis.txt").write_text("mine")
    before = content_of(tmp_path)
    files = raw_files.find_logs(skeleton, common)
    with pytest.raises(InputError, match="expected nothing, an empty folder or samples to replace"):
        build_samples.run(
            spark, TextLogs(files), ALI_CCP, SETTINGS, str(tmp_path / "days" / out), overwrite=True
        )
    assert content_of(tmp_path) == before


def test_what_a_user_keeps_where_rejected_lines_would_go_is_not_replaced(spark, tmp_path):
    skeleton, common = write_logs(tmp_path, random_logs(seed=5, num_contexts=10))
    notes = tmp_path / "_rejected" / "out" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.touch()
    with pytest.raises(InputError, match=r"rejected lines to replace, found a folder with notes\.txt"):
        build(spark, skeleton, common, tmp_path / "out")
    assert notes.exists() and not (tmp_path / "out").exists()


def test_an_attempt_that_ends_late_is_not_published(spark, tmp_path, monkeypatch):
    """Between the commit and the rename a lost attempt of a task puts its file where attempts write."""
    skeleton, common = write_logs(tmp_path, random_logs(seed=5, num_contexts=10))
    check, late = build_samples.check, []

    def check_later(*arguments):
        [staged] = tmp_path.glob(".out.staging-*")
        [first, *_] = staged.rglob("part-*.parquet")
        for place in (staged, staged / "attempts"):
            if place.exists():
                late.append(shutil.copy(first, place / f"00003-{uuid.uuid4().hex}.parquet"))
        check(*arguments)

    monkeypatch.setattr(build_samples, "check", check_later)
    made = build(spark, skeleton, common, tmp_path / "out")
    assert late
    assert {p.name for p in (tmp_path / "out").glob("*.parquet")} == {file["name"] for file in made["files"]}
    rows = spark.read.parquet(f"file://{tmp_path}/out").selectExpr("sum(size(sample_id))").first()[0]
    assert rows == made["counts"]["impressions"]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "missing.csv", "no such file"),
        (b"", "empty.csv", "the file is empty"),
        (b"PAR1", "x.parquet", "ends with .csv or .csv.gz"),
        (b"\x1f\x8b\x08", "x.csv", "expected plain text, found gzip"),
        (b"1,2,3", "x.csv.gz", "expected gzip data"),
    ],
)
def test_files_that_are_no_logs_are_refused_before_spark_starts(tmp_path, content, name, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        raw_files.find_logs(str(path), str(path))


def test_the_command_reports_all_mistakes_of_a_configuration_without_a_traceback(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("samples: {hash_seed: -1, rows_per_row_group: 0, nonsense: 1, buckets: {'999': 5}}")
    command = [sys.executable, "-m", "jobs.build_samples", "--skeleton", "x", "--common", "y"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "o"), "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in ("4 mistake(s)", "hash_seed", "rows_per_row_group", "nonsense", "unknown field 999"):
        assert part in done.stderr
