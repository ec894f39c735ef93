"""Another schema than Ali-CCP's, with far more fields: from raw logs to an id table, samples, a profile."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs import build_ids, build_samples, profile_samples
from jobs.profiling.config import ProfileConfig, load_profile_config
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import hashing, ids, manifest
from schemas.fields import Field
from schemas.schema import Schema
from tests.fixtures.raw_lines import RawLogs, feature, write_logs

SIDES = ("user", "item", "context")
# More than fit into a byte; every fourth is a list.
FIELDS = [Field(f"{100 + n}", SIDES[n % 3], 40, multi=n % 4 == 0) for n in range(150)]  # type: ignore[arg-type]
SCHEMA = Schema("wide", tuple(FIELDS), user_id="103")
LAST, CONTEXTS = SCHEMA.fields[-1], 12
CONFIG = SamplesConfig(vocabulary=(LAST.name,), buckets={"100": 50})


def line(number: int, fields: tuple[Field, ...]) -> str:
    """A feature of every field; the id of field f in line n is f + n."""
    features = [feature(field.name, int(field.name) + number, "1.0") for field in fields]
    return f"{number:016x},{len(features)},{chr(1).join(features)}"


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contexts of an impression each, their id table, their samples."""
    path = tmp_path_factory.mktemp("wide")
    logs = RawLogs(
        [f"{n + 1},0,0,{line(n, SCHEMA.impression_fields)}" for n in range(CONTEXTS)],
        [line(n, SCHEMA.user_fields) for n in range(CONTEXTS)],
    )
    files = raw_files.find_logs(*write_logs(path, logs))
    build_ids.run(spark, TextLogs(files), SCHEMA, CONFIG, str(path / "ids"), overwrite=False)
    out = str(path / "samples")
    build_samples.run(
        spark, TextLogs(files), SCHEMA, CONFIG, out, overwrite=False, ids_folder=str(path / "ids")
    )
    return path


def test_the_id_table_counts_every_field(folder: Path) -> None:
    made = ids.read(str(folder / "ids"))
    assert made["broken_lines"] == 0
    assert {name: report["ids"] for name, report in made["fields"].items()} == dict.fromkeys(
        SCHEMA.index, CONTEXTS
    )
    known = pq.read_table(folder / "ids").to_pylist()
    assert [(row["field"], row["id"]) for row in known] == [
        (LAST.name, int(LAST.name) + n) for n in range(CONTEXTS)
    ]


def test_the_samples_have_every_field(folder: Path) -> None:
    made = manifest.read(str(folder / "samples"))
    assert manifest.schema_of(made) == SCHEMA.with_buckets({"100": 50})
    for row in pq.read_table(folder / "samples" / made["files"][0]["name"]).to_pylist():
        number = row["sample_id"][0] - 1
        assert row["user_id"] == 103 + number
        for field in SCHEMA.fields[:-1]:
            size = 50 if field.name == "100" else 40
            bucket = hashing.bucket(field.name, int(field.name) + number, size, 0)
            assert row[field.column] == ([bucket] if field.per_impression or field.multi else bucket)
        assert row[LAST.column] == [ids.FIRST_KNOWN + number]


def test_the_profile_tells_of_every_field(spark, folder: Path, tmp_path: Path) -> None:
    samples = str(folder / "samples")
    inputs = profile_samples.read_inputs(samples, against=samples)
    assert inputs.schema == SCHEMA.with_buckets({"100": 50})
    profile = profile_samples.run(spark, inputs, ProfileConfig(), str(tmp_path / "profile.json"))
    assert list(profile["fields"]) == list(SCHEMA.index)
    for name, found in profile["fields"].items():
        assert (found["tokens"], found["coverage"]) == (CONTEXTS, 1), name
        assert found["buckets"] == (50 if name == "100" else 40)
        assert found["drift"]["unseen_tokens"] == 0
    assert profile["fields"][LAST.name]["distinct_ids"] == CONTEXTS


def test_gates_name_fields_of_these_samples(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("profile: {gates: {min_coverage: {'109_14': 0.5, '249': 0.5}}}")
    with pytest.raises(InputError, match="unknown field 109_14; known: any, 100"):
        load_profile_config(str(path), SCHEMA)
