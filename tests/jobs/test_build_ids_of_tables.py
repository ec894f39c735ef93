"""Id tables of logs that are tables, on real Spark, beside those of the same logs as text; their samples."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from cli.errors import InputError
from jobs import build_ids, build_samples, profile_samples
from jobs.profiling.config import ProfileConfig
from jobs.raw_logs.text_logs import TextLogs
from jobs.raw_tables.source import TableLogs
from jobs.samples_config import SamplesConfig
from schemas import ids, manifest
from schemas.ids import FieldReport
from schemas.schema import Schema
from tests.jobs.raw_tables.test_source import KINDS, OWN, SETTINGS, TABLES, TEXT, as_text, drawn

MIN_COUNT = {"101": 2, "109_14": 2, "205": 2, "210": 11}  # no customer comes twice
FILTERED = SETTINGS.model_copy(update={"min_count": MIN_COUNT})
RANKED = SETTINGS.model_copy(update={"min_count": MIN_COUNT, "vocabulary": ("210", "508")})


@pytest.fixture(scope="module")
def folder(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables and one flat table of the same, and a place for what is made of them."""
    path = tmp_path_factory.mktemp("tables")
    write(spark, path, *drawn())
    return path


def write(
    spark: SparkSession, path: Path, contexts: list[Any], impressions: list[Any], kinds: str = OWN
) -> None:
    """Contexts without impressions are in the flat table with an impression that is broken."""
    two = spark.createDataFrame(contexts, KINDS), spark.createDataFrame(impressions, kinds)
    two[0].repartition(3).write.parquet(str(path / "contexts"))
    two[1].repartition(3).write.parquet(str(path / "impressions"))
    two[1].join(two[0], "context", "right").repartition(3).write.parquet(str(path / "flat"))


def two(spark: SparkSession, folder: Path) -> TableLogs:
    return TableLogs.open(spark, str(folder / "impressions"), str(folder / "contexts"), "parquet")


def flat(spark: SparkSession, folder: Path) -> TableLogs:
    return TableLogs.open(spark, str(folder / "flat"), None, "parquet")


def make(
    spark: SparkSession, logs: TextLogs | TableLogs, schema: Schema, config: SamplesConfig, out: Path
) -> ids.IdManifest:
    build_ids.run(spark, logs, schema, config, str(out), overwrite=False)
    return ids.read(str(out))


@pytest.fixture(scope="module")
def text(folder: Path) -> TextLogs:
    return as_text(folder / "text", *drawn())


@pytest.fixture(scope="module")
def of_text(spark: SparkSession, folder: Path, text: TextLogs) -> ids.IdManifest:
    return make(spark, text, TEXT, FILTERED, folder / "ids_of_text")


@pytest.fixture(scope="module")
def of_tables(spark: SparkSession, folder: Path) -> ids.IdManifest:
    return make(spark, two(spark, folder), TABLES, FILTERED, folder / "ids_of_tables")


def test_tables_are_counted_as_the_same_logs_as_text(
    of_text: ids.IdManifest, of_tables: ids.IdManifest
) -> None:
    assert of_tables["fields"] == of_text["fields"]
    assert of_tables["lines"] == of_text["lines"] == sum(map(len, drawn()))
    assert of_tables["broken_lines"] == of_text["broken_lines"] == 0
    for name in ("109_14", "205", "210"):
        assert 0 < of_text["fields"][name]["kept_ids"] < of_text["fields"][name]["ids"]
    assert of_tables["keys"] == "hash"
    assert "keys" not in of_text
    assert of_tables["digest"] != of_text["digest"]


def test_a_rerun_and_a_flat_table_give_the_same_id_table(
    spark: SparkSession, folder: Path, of_tables: ids.IdManifest, tmp_path: Path
) -> None:
    again = make(spark, two(spark, folder), TABLES, FILTERED, tmp_path / "again")
    assert again["digest"] == of_tables["digest"]
    lax = FILTERED.model_copy(update={"max_broken_share": 0.9})
    of_flat = make(spark, flat(spark, folder), TABLES, lax, tmp_path / "flat")
    assert (of_flat["digest"], of_flat["lines"]) == (of_tables["digest"], of_tables["lines"])
    assert of_flat["fields"] == of_tables["fields"]
    other = make(
        spark, two(spark, folder), TABLES, FILTERED.model_copy(update={"hash_seed": 4}), tmp_path / "seed"
    )
    assert other["digest"] != of_tables["digest"]


def samples(
    spark: SparkSession,
    logs: TextLogs | TableLogs,
    schema: Schema,
    config: SamplesConfig,
    out: Path,
    table: Path,
) -> pa.Table:
    build_samples.run(spark, logs, schema, config, str(out), overwrite=False, ids_folder=str(table))
    files = [str(out / entry["name"]) for entry in manifest.read(str(out))["files"]]
    return pa.concat_tables(pq.ParquetFile(file).read() for file in files).sort_by("context_id")


def test_tables_and_text_give_the_same_samples_by_their_id_tables(
    spark: SparkSession,
    folder: Path,
    text: TextLogs,
    of_text: ids.IdManifest,
    of_tables: ids.IdManifest,
    tmp_path: Path,
) -> None:
    one = samples(spark, text, TEXT, FILTERED, tmp_path / "text", folder / "ids_of_text")
    other = samples(
        spark, two(spark, folder), TABLES, FILTERED, tmp_path / "tables", folder / "ids_of_tables"
    )
    lists = ("user_109_14", "user_109_14_weight")  # sorted upwards and downwards in turn, by place in a file
    others = [name for name in one.column_names if name not in lists]
    assert one.select(others).equals(other.select(others))
    for row, same in zip(one.to_pylist(), other.to_pylist(), strict=True):
        pairs = [sorted(zip(*(each[name] for name in lists), strict=True)) for each in (row, same)]
        assert pairs[0] == pairs[1]
    assert {1} < set(one["item_205"].combine_chunks().flatten().to_pylist())
    assert manifest.read(str(tmp_path / "tables"))["id_table"]["digest"] == of_tables["digest"]
    inputs = profile_samples.read_inputs(str(tmp_path / "tables"))
    profile = profile_samples.run(spark, inputs, ProfileConfig(), str(tmp_path / "profile.json"))
    for name, field in profile["fields"].items():
        assert field["measured"]["kept_ids"] == of_tables["fields"][name]["kept_ids"]


def test_the_buckets_of_ids_that_are_words(spark: SparkSession, tmp_path: Path) -> None:
    contexts, impressions = drawn()
    for row in impressions:
        row["tags"] = [f"tag {tag}" if int(tag) % 2 else tag for tag in row["tags"]]
    write(spark, tmp_path, contexts, impressions)
    made = make(spark, two(spark, tmp_path), TABLES, RANKED, tmp_path / "ids")
    settings = ids.settings_of(made)
    assert settings == RANKED.id_settings(TABLES)
    found = pq.read_table(sorted(map(str, (tmp_path / "ids").glob("*.parquet"))))
    assert found.schema.equals(ids.arrow_schema())
    counts = Counter(tag for row in impressions for tag in row["tags"])
    kept = [tag for tag in counts if counts[tag] >= MIN_COUNT["210"]]
    ranked = sorted(kept, key=lambda tag: (-counts[tag], ids.key_of("210", tag, settings)))
    rows = {(row["field"], row["id"]): row for row in found.to_pylist()}
    assert {name for name, _ in rows} == {"109_14", "205", "210", "508"}
    assert len(ranked) == sum(name == "210" for name, _ in rows)
    for rank, tag in enumerate(ranked):
        row = rows["210", ids.key_of("210", tag, settings)]
        assert (row["count"], row["bucket"]) == (counts[tag], 2 + rank)
    table = {key: row["bucket"] for key, row in rows.items()}
    out = samples(spark, two(spark, tmp_path), TABLES, RANKED, tmp_path / "samples", tmp_path / "ids")
    expected = Counter(
        ids.bucket_of("210", tag, settings, table) for row in impressions for tag in row["tags"]
    )
    assert 0 < len(kept) < len(counts)
    assert Counter(out["item_210"].combine_chunks().flatten().to_pylist()) == expected


def test_broken_rows_do_not_count_and_too_many_publish_nothing(spark: SparkSession, tmp_path: Path) -> None:
    contexts, impressions = drawn()
    good: FieldReport = make_report(spark, tmp_path / "good", contexts, impressions)["fields"]["210"]
    tags = impressions[0]["tags"] = ["1", "2"]
    bad = [{**impressions[0], "impression": 10_000 + n, "bought": 7} for n in range(9)]
    made = make_report(spark, tmp_path / "bad", contexts, [*impressions, *bad])
    assert made["broken_lines"] == 9
    assert made["fields"]["210"]["tokens"] == good["tokens"] - len(drawn()[1][0]["tags"]) + len(tags)
    strict = SETTINGS.model_copy(update={"max_broken_share": 0.001})
    with pytest.raises(InputError, match=f"9 of {made['lines'] + 9} lines are broken"):
        make(spark, two(spark, tmp_path / "bad"), TABLES, strict, tmp_path / "ids")
    assert not (tmp_path / "ids").exists()


def make_report(
    spark: SparkSession, path: Path, contexts: list[Any], impressions: list[Any]
) -> ids.IdManifest:
    write(spark, path, contexts, impressions)
    return make(spark, two(spark, path), TABLES, SETTINGS, path / "ids")


def test_an_id_table_of_the_other_kind_of_logs_is_refused(
    folder: Path, of_text: ids.IdManifest, of_tables: ids.IdManifest
) -> None:
    for name, schema, message in (
        ("ids_of_text", TABLES, "ids_of_text: expected an id table of tables, found one of text logs"),
        ("ids_of_tables", TEXT, "ids_of_tables: expected an id table of text logs, found one of tables"),
    ):
        with pytest.raises(InputError, match=message):
            ids.require_fit(str(folder / name), FILTERED.id_settings(schema))
    other_seed = FILTERED.model_copy(update={"hash_seed": 4})
    with pytest.raises(InputError, match="hash_seed: table 3, configuration 4"):
        ids.require_fit(str(folder / "ids_of_tables"), other_seed.id_settings(TABLES))
