"""Bad logs through the whole job on real Spark: set aside with reason and text, or nothing is published.

What spoils a whole file (byte-order mark, Windows line ends from the first line on, empty files) is
refused before Spark starts: tests/jobs/raw_logs/test_files.py.
"""

import gzip
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs import build_samples
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import manifest
from schemas.quarantine import QUARANTINE_FOLDER
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS, IMPRESSION_FIELDS, USER_FIELDS
from tests.fixtures.raw_lines import (
    RawLogs,
    expected_impressions,
    feature,
    impressions_of_samples,
    random_features,
    random_logs,
)

BUCKETS = {f.name: 1000 for f in FIELDS}
SETTINGS = SamplesConfig(
    buckets=BUCKETS, impressions_per_row=5, rows_per_row_group=7, raw_bytes_per_file=40_000
)
LENIENT = SETTINGS.model_copy(update={"max_broken_share": 0.5})
LONG_ID = "123456789012345678901234567890"


def build(spark, folder: Path, settings: SamplesConfig) -> manifest.Manifest:
    """Build the samples of the logs in a folder, which holds both sides by their names."""
    files = raw_files.find_logs(str(folder), str(folder))
    build_samples.run(
        spark, TextLogs(files), ALI_CCP, settings, str(folder.parent / "samples"), overwrite=False
    )
    return manifest.read(str(folder.parent / "samples"))


def write_parts(folder: Path, side: str, parts: list[list[str]]) -> None:
    """Part files 0, 1, ... of one side."""
    folder.mkdir(exist_ok=True)
    for number, lines in enumerate(parts):
        content = "".join(line + "\n" for line in lines)
        (folder / f"{side}-{number}.csv").write_bytes(content.encode())


def quarantine(folder: Path) -> list[dict]:
    return pq.read_table(sorted(folder.glob("*.parquet"))).to_pylist()


def assert_samples_are(out: Path, logs: RawLogs) -> None:
    """The samples hold exactly these logs, by an independent reading."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("part-*.parquet"))])
    expected = expected_impressions(logs, BUCKETS, 0)
    for impression in expected.values():
        for name, values in impression["fields"].items():
            impression["fields"][name] = [(i, float(np.float32(weight))) for i, weight in values]
    assert impressions_of_samples(table) == expected


class Broken(NamedTuple):
    """A line that must be set aside, and why."""

    case: str
    side: str
    line: bytes
    reason: str


def broken_lines(context: str) -> list[Broken]:
    """One or more lines for every kind of bad value. context: of a good common record."""
    cases = []

    def skeleton(case: str, reason: str, **changes: str | bytes) -> None:
        columns = {
            "sample_id": "900001", "click": "1", "conversion": "0", "context": context, "count": "1",
            "features": feature("205", 7, "1.0"),
        } | changes  # fmt: skip
        line = b",".join(c if isinstance(c, bytes) else c.encode() for c in columns.values())
        cases.append(Broken(case, "sample_skeleton", line, reason))

    def common(case: str, reason: str, features: bytes, key: bytes = b"00000000000000ab") -> None:
        cases.append(Broken(case, "common_features", key + b",1," + features, reason))

    skeleton("invalid UTF-8 in an id", "bad_feature", features=b"205\x02\xff\xfe\x031.0")
    skeleton("invalid UTF-8 in a value", "bad_feature", features=b"205\x027\x031.\xc3")
    skeleton("invalid UTF-8 in the context", "bad_context_id", context=b"\x80" * 16)
    common("invalid UTF-8 in a field", "bad_feature", b"10\xf0\x28")
    skeleton("byte-order mark within a file", "bad_number", sample_id=b"\xef\xbb\xbf900001")
    common("byte-order mark within a file", "bad_context_id", b"", key=b"\xef\xbb\xbf00000000000000ab")
    skeleton("Windows line end within a file", "bad_feature", features=b"205\x027\x031.0\r")
    common("Windows line end within a file", "bad_feature", b"101\x027\x031.0\r")
    skeleton("sample id of 30 digits", "bad_number", sample_id=LONG_ID)
    skeleton("feature count of 30 digits", "bad_number", count=LONG_ID)
    skeleton("context of 30 digits", "bad_context_id", context=LONG_ID)
    skeleton("item id of 30 digits", "bad_feature", features=feature("205", LONG_ID, "1.0"))
    common("user id of 30 digits", "bad_feature", feature("101", LONG_ID, "1.0").encode())
    skeleton("field of 30 digits", "unknown_field", features=feature(LONG_ID, 7, "1.0"))
    for value in ("-1.0", "-0.0", "nan", "NaN", "inf", "-inf", "1e400", "9" * 40, ""):
        skeleton(f"cross weight {value}", "bad_feature", features=feature("508", 7, value))
        common(f"history weight {value}", "bad_feature", feature("109_14", 7, value).encode())
    return cases


GOOD = random_logs(seed=21, num_contexts=60)
BROKEN = broken_lines(GOOD.common[0].split(",")[0])


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory):
    """Samples of good logs with every broken line somewhere among their lines."""
    folder = tmp_path_factory.mktemp("bad") / "logs"
    folder.mkdir()
    rng = random.Random(1)
    for side, good in (("sample_skeleton", GOOD.skeleton), ("common_features", GOOD.common)):
        lines = [line.encode() for line in good]
        for broken in BROKEN:
            if broken.side == side:
                lines.insert(rng.randrange(1, len(lines)), broken.line)
        (folder / f"{side}.csv").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder.parent / "samples", build(spark, folder, LENIENT)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.side}: {broken.case}")
def test_a_bad_value_sets_its_line_aside_with_reason_place_and_text(built, broken: Broken):
    out, _ = built
    found = [
        line
        for line in quarantine(out / QUARANTINE_FOLDER)
        if line["text"] == broken.line and f"/{broken.side}" in line["file"]
    ]
    assert [line["reason"] for line in found] == [broken.reason]
    content = Path(found[0]["file"].removeprefix("file://")).read_bytes()
    assert content[found[0]["offset"] :].split(b"\n")[0] == broken.line


def test_the_good_lines_around_bad_ones_become_samples(built):
    out, made = built
    assert_samples_are(out, GOOD)
    assert sum(made["quarantine"].values()) == len(BROKEN)


@pytest.fixture
def without_a_common_part(tmp_path: Path) -> tuple[Path, RawLogs, list[str]]:
    """Logs in part files of which one of the common side is missing; what is left; the orphans."""
    logs = random_logs(seed=22, num_contexts=90)
    folder = tmp_path / "logs"
    thirds = [logs.common[i::3] for i in range(3)]
    write_parts(folder, "common_features", thirds)
    write_parts(folder, "sample_skeleton", [logs.skeleton[::2], logs.skeleton[1::2]])
    (folder / "common_features-1.csv").unlink()
    missing = {line.split(",")[0] for line in thirds[1]}
    orphans = [line for line in logs.skeleton if line.split(",")[3] in missing]
    rest = [line for line in logs.skeleton if line.split(",")[3] not in missing]
    return folder, RawLogs(skeleton=rest, common=thirds[0] + thirds[2]), orphans


def test_impressions_of_a_missing_common_part_are_set_aside(spark, without_a_common_part):
    folder, rest, orphans = without_a_common_part
    made = build(spark, folder, LENIENT)
    assert made["quarantine"] == {"no_common_record": len(orphans)}
    lines = quarantine(folder.parent / "samples" / QUARANTINE_FOLDER)
    assert sorted(line["text"] for line in lines) == sorted(line.encode() for line in orphans)
    assert_samples_are(folder.parent / "samples", rest)


def test_a_missing_common_part_stops_the_job_with_a_hint(spark, without_a_common_part):
    folder, _, orphans = without_a_common_part
    with pytest.raises(InputError) as error:
        build(spark, folder, SETTINGS)
    hint = f"{len(orphans)} impressions lack their common record: is a part of the common files missing?"
    assert hint in str(error.value)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["_rejected", "logs"]
    assert len(quarantine(folder.parent / "_rejected/samples")) == len(orphans)


@pytest.mark.parametrize("spoil", ["cut in the middle", "changed in the middle"])
def test_a_damaged_gz_file_stops_the_job_and_nothing_is_left(spark, tmp_path: Path, spoil: str):
    logs = random_logs(seed=23, num_contexts=200)
    folder = tmp_path / "logs"
    write_parts(folder, "common_features", [logs.common])
    content = gzip.compress("".join(line + "\n" for line in logs.skeleton).encode())
    half = len(content) // 2
    rest = b"" if spoil == "cut in the middle" else bytes(64) + content[half + 64 :]
    (folder / "sample_skeleton-0.csv.gz").write_bytes(content[:half] + rest)
    with pytest.raises(InputError, match=r"sample_skeleton-0\.csv\.gz: expected a whole gzip file"):
        build(spark, folder, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_of_two_common_records_the_first_counts_in_the_natural_order_of_the_files(spark, tmp_path: Path):
    """Whatever file it is in: a repeated one, and others under the same id in part 2 and in part 10."""
    logs = random_logs(seed=24, num_contexts=40, most_impressions=3)
    rng = random.Random(2)
    parts = [logs.common[i::11] for i in range(11)]
    first = [parts[0][0], parts[2][0], parts[2][1]]
    again = [f"{line.split(',')[0]},{random_features(rng, USER_FIELDS)}" for line in first]
    parts[2] += [parts[2][0]]
    parts[10] += again
    write_parts(tmp_path / "logs", "common_features", parts)
    write_parts(tmp_path / "logs", "sample_skeleton", [logs.skeleton])
    made = build(spark, tmp_path / "logs", LENIENT)
    assert made["quarantine"] == {"duplicate_common_record": 4}
    lines = quarantine(tmp_path / "samples" / QUARANTINE_FOLDER)
    assert sorted(line["text"].decode() for line in lines) == sorted([*again, first[1]])
    assert_samples_are(tmp_path / "samples", logs)


def test_empty_part_files_change_nothing(spark, tmp_path: Path):
    logs = random_logs(seed=25, num_contexts=20)
    folder = tmp_path / "logs"
    write_parts(folder, "common_features", [[], logs.common[:7], [], logs.common[7:]])
    write_parts(folder, "sample_skeleton", [logs.skeleton, []])
    (folder / "sample_skeleton-2.csv.gz").write_bytes(gzip.compress(b""))
    made = build(spark, folder, SETTINGS)
    assert made["quarantine"] == {}
    assert_samples_are(tmp_path / "samples", logs)
    assert len(made["source"]["files"]) == 3


def test_records_without_any_feature_are_good(spark, tmp_path: Path):
    context = "00000000000000ab"
    features = random_features(random.Random(3), IMPRESSION_FIELDS)
    logs = RawLogs(skeleton=[f"1,0,0,{context},0,", f"2,1,1,{context},{features}"], common=[f"{context},0,"])
    write_parts(tmp_path / "logs", "common_features", [logs.common])
    write_parts(tmp_path / "logs", "sample_skeleton", [logs.skeleton])
    build(spark, tmp_path / "logs", SETTINGS)
    assert_samples_are(tmp_path / "samples", logs)
