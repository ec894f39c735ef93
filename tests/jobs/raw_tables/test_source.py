"""Tables read by Spark's own readers: two tables, one flat table and text logs give the same samples."""

import json
import math
import random
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from cli.errors import InputError
from jobs import build_samples
from jobs.raw_logs.files import find_logs
from jobs.raw_logs.text_logs import TextLogs
from jobs.raw_tables.arguments import require_logs
from jobs.raw_tables.source import TableLogs
from jobs.samples_config import SamplesConfig
from schemas import manifest
from schemas.fields import Field
from schemas.numbers import Number
from schemas.schema import Schema, Tables
from tests.fixtures.raw_lines import feature

SETTINGS = SamplesConfig(hash_seed=3, impressions_per_row=4, rows_per_row_group=16, max_broken_share=0.5)
FIELDS = (
    Field("101", "user", 90, source="customer"),
    Field("109_14", "user", 70, multi=True, weighted=True, source="seen"),
    Field("205", "item", 80, source="product.id"),
    Field("210", "item", 30, multi=True, source="tags"),
    Field("508", "cross", 40, weighted=True, source="match", weight_source="match_strength"),
)
TEXT = Schema("shop", FIELDS, "101", "205")
TABLES = Schema("shop", FIELDS, "101", "205", Tables("context", "impression", "clicked", "bought"))
NUMBERED = replace(
    TABLES,
    tables=replace(TABLES.tables, weight="importance"),
    numbers=(
        Number("age", "user", clip=(0, 40)),
        Number("price", "item", source="product.price", log1p=True),
    ),
)
KINDS = "context string, customer bigint, seen array<struct<id: int, weight: double>>, age int"
OWN = (
    "context string, impression bigint, clicked boolean, bought tinyint, "
    "product struct<id: int, price: decimal(9, 2)>, importance float, "
    "tags array<string>, match string, match_strength float, carted boolean, wished int"
)


def drawn(num_contexts: int = 60) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Contexts and impressions whose ids are whole numbers, some of them written as text."""
    rng = random.Random(4)
    contexts, impressions = [], []
    for _ in range(num_contexts):
        seen = {rng.randint(0, 99): rng.randint(1, 64) / 8 for _ in range(rng.randint(0, 5))}
        context = f"{rng.getrandbits(64) | 1 << 63:016x}"
        customer = rng.choice([None, rng.randint(0, 999)])
        age = rng.choice([None, rng.randint(1, 99)])
        contexts.append({"context": context, "customer": customer, "seen": list(seen.items()), "age": age})
        for _ in range(rng.randint(0, 6)):
            click = rng.random() < 0.4
            impressions.append(
                {
                    "context": context,
                    "impression": len(impressions) + 1,
                    "clicked": click,
                    "bought": int(click and rng.random() < 0.5),
                    "product": (rng.randint(0, 999), rng.choice([None, Decimal(rng.randint(1, 9999)) / 100])),
                    "importance": rng.randint(0, 8) / 4,
                    "tags": [str(rng.randint(0, 20)) for _ in range(rng.randint(0, 3))],
                    "match": rng.choice([None, str(rng.randint(0, 9))]),
                    "match_strength": rng.randint(1, 64) / 8,
                    "carted": click and len(impressions) % 3 == 0,
                    "wished": int(click and len(impressions) % 4 == 0),
                }
            )
    return contexts, impressions


def as_text(folder: Path, contexts: list[dict[str, Any]], impressions: list[dict[str, Any]]) -> TextLogs:
    """The same logs as lines."""

    def line(*head: Any, features: list[str]) -> str:
        return ",".join(map(str, (*head, len(features), "\x01".join(features)))) + "\n"

    def of_context(row: dict[str, Any]) -> str:
        own = [] if row["customer"] is None else [feature("101", row["customer"], "1.0")]
        own += [feature("109_14", i, str(w)) for i, w in row["seen"]]
        return line(row["context"], features=own)

    def of_impression(row: dict[str, Any]) -> str:
        own = [feature("205", row["product"][0], "1.0"), *(feature("210", i, "1.0") for i in row["tags"])]
        if row["match"] is not None:
            own.append(feature("508", row["match"], str(row["match_strength"])))
        head = (row["impression"], int(row["clicked"]), row["bought"], row["context"])
        return line(*head, features=own)

    folder.mkdir()
    common, skeleton = folder / "common_features.csv", folder / "sample_skeleton.csv"
    common.write_text("".join(map(of_context, contexts)))
    skeleton.write_text("".join(map(of_impression, impressions)))
    return TextLogs(find_logs(str(skeleton), str(common)))


def built(spark: SparkSession, logs: TextLogs | TableLogs, schema: Schema, out: Path) -> pa.Table:
    build_samples.run(spark, logs, schema, SETTINGS, str(out), overwrite=False)
    files = [str(out / entry["name"]) for entry in manifest.read(str(out))["files"]]
    return pa.concat_tables(pq.ParquetFile(file).read() for file in files).sort_by("context_id")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Path:
    """Two tables, and one flat table of the same, in several files."""
    folder = tmp_path_factory.mktemp("tables")
    contexts, impressions = drawn()
    two = spark.createDataFrame(contexts, KINDS), spark.createDataFrame(impressions, OWN)
    two[0].repartition(3).write.parquet(str(folder / "contexts"))
    two[1].repartition(3).write.parquet(str(folder / "impressions"))
    flat = two[1].join(two[0], "context").repartition(3)
    flat.write.parquet(str(folder / "flat"))
    spark.read.parquet(str(folder / "flat")).createOrReplaceTempView("flat_logs")
    return folder


@pytest.fixture(scope="module")
def of_text(logs: Path, spark: SparkSession) -> pa.Table:
    return built(spark, as_text(logs / "text", *drawn()), TEXT, logs / "samples_of_text")


@pytest.mark.parametrize(
    ("impressions", "contexts", "kind"),
    [("impressions", "contexts", "parquet"), ("flat", None, "parquet"), ("flat_logs", None, "table")],
)
def test_tables_and_text_give_the_same_samples(
    spark: SparkSession,
    logs: Path,
    of_text: pa.Table,
    tmp_path: Path,
    impressions: str,
    contexts: str,
    kind: str,
) -> None:
    names = [name if kind == "table" else name and str(logs / name) for name in (impressions, contexts)]
    found = built(spark, TableLogs.open(spark, names[0], names[1], kind), TABLES, tmp_path / "samples")
    lists = ("user_109_14", "user_109_14_weight")  # sorted upwards and downwards in turn, by place in a file
    others = [name for name in found.column_names if name not in lists]
    assert found.select(others).equals(of_text.select(others))
    for one, other in zip(found.to_pylist(), of_text.to_pylist(), strict=True):
        pairs = [sorted(zip(*(row[name] for name in lists), strict=True)) for row in (one, other)]
        assert pairs[0] == pairs[1]
    made = manifest.read(str(tmp_path / "samples"))
    assert manifest.schema_of(made) == TABLES
    assert made["quarantine"] == {}


def test_numbers_and_weights_are_in_the_samples_and_their_statistics_beside_them(
    spark: SparkSession, logs: Path, tmp_path: Path
) -> None:
    tables = TableLogs.open(spark, str(logs / "impressions"), str(logs / "contexts"), "parquet")
    found = built(spark, tables, NUMBERED, tmp_path / "samples")
    contexts, impressions = drawn()
    age = {row["context"]: row["age"] for row in contexts}
    expected = {
        row["impression"]: (age[row["context"]], row["product"][1], row["importance"]) for row in impressions
    }
    for row in found.to_pylist():
        numbers = zip(row["sample_id"], row["item_price"], row["weight"], strict=True)
        for sample_id, price, weight in numbers:
            for value, other in zip((row["user_age"], price, weight), expected[sample_id], strict=True):
                assert math.isnan(value) if other is None else value == pytest.approx(float(other))
    assert sum(map(len, found["sample_id"].to_pylist())) == len(expected)
    made = manifest.read(str(tmp_path / "samples"))["numbers"]
    ages = [min(a, 40) for a, _, _ in expected.values() if a is not None]
    prices = [math.log1p(price) for _, price, _ in expected.values() if price is not None]
    for one, values in ((made["age"], ages), (made["price"], prices)):
        assert (one["values"], one["missing"]) == (len(values), len(expected) - len(values))
        assert (one["mean"], one["std"]) == pytest.approx((fmean(values), pstdev(values)), rel=1e-5)
        assert (one["min"], one["max"]) == pytest.approx((min(values), max(values)))


WITH_ACTIONS = replace(TABLES, tables=replace(TABLES.tables, actions=("carted", "wished")))


def test_any_action_of_a_click_is_in_the_samples_and_counted(
    spark: SparkSession, logs: Path, tmp_path: Path
) -> None:
    tables = TableLogs.open(spark, str(logs / "impressions"), str(logs / "contexts"), "parquet")
    found = built(spark, tables, WITH_ACTIONS, tmp_path / "samples")
    expected = {row["impression"]: int(row["carted"] or row["wished"]) for row in drawn()[1]}
    pairs = zip(found["sample_id"].to_pylist(), found["action"].to_pylist(), strict=True)
    assert {i: action for ids, actions in pairs for i, action in zip(ids, actions, strict=True)} == expected
    made = manifest.read(str(tmp_path / "samples"))
    assert made["counts"]["actions"] == sum(expected.values()) > 20
    assert manifest.schema_of(made) == WITH_ACTIONS


def test_an_action_that_is_no_label_or_has_no_click_is_set_aside(spark: SparkSession, tmp_path: Path) -> None:
    contexts, impressions = drawn()
    unclicked = next(row for row in impressions if not row["clicked"])
    clicked = [row for row in impressions if row["clicked"]]
    unclicked["carted"], clicked[0]["wished"], clicked[1]["carted"] = True, 3, None
    spark.createDataFrame(contexts, KINDS).write.parquet(str(tmp_path / "contexts"))
    spark.createDataFrame(impressions, OWN).write.parquet(str(tmp_path / "impressions"))
    tables = TableLogs.open(spark, str(tmp_path / "impressions"), str(tmp_path / "contexts"), "parquet")
    built(spark, tables, WITH_ACTIONS, tmp_path / "samples")
    made = manifest.read(str(tmp_path / "samples"))
    assert made["quarantine"] == {"action_without_click": 1, "bad_label": 2}


def test_a_rerun_gives_the_same_bytes(spark: SparkSession, logs: Path, tmp_path: Path) -> None:
    tables = TableLogs.open(spark, str(logs / "impressions"), str(logs / "contexts"), "parquet")
    for out in ("one", "two"):
        built(spark, tables, NUMBERED, tmp_path / out)
    names = sorted(path.name for path in (tmp_path / "one").glob("*.parquet"))
    assert names
    for name in (*names, "_manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_broken_rows_are_told_kept_and_too_many_stop_the_job(spark: SparkSession, tmp_path: Path) -> None:
    contexts, impressions = drawn()
    impressions[0]["match"], impressions[0]["match_strength"] = "7", float("nan")
    impressions[1]["context"] = None
    impressions.append({**impressions[2]})
    spark.createDataFrame(contexts, KINDS).write.parquet(str(tmp_path / "contexts"))
    spark.createDataFrame(impressions, OWN).write.parquet(str(tmp_path / "impressions"))
    tables = TableLogs.open(spark, str(tmp_path / "impressions"), str(tmp_path / "contexts"), "parquet")
    built(spark, tables, TABLES, tmp_path / "samples")
    made = manifest.read(str(tmp_path / "samples"))
    assert made["quarantine"] == {"bad_weight": 1, "duplicate_sample_id": 1, "null_key": 1}
    assert made["counts"]["impressions"] == len(impressions) - 3
    rows = pq.ParquetFile(next((tmp_path / "samples/_quarantine").iterdir())).read().to_pylist()
    assert {(row["file"], row["offset"]) for row in rows} == {(str(tmp_path / "impressions"), None)}
    whole = {row["reason"]: json.loads(row["text"]) for row in rows}
    assert whole["null_key"]["impression"] == 2
    assert whole["bad_weight"]["match_strength"] == "nan"
    assert whole["duplicate_sample_id"] == {"impression": 3}
    strict = SETTINGS.model_copy(update={"max_broken_share": 0.001})
    with pytest.raises(InputError, match=r"null_key: 1 .*(?s:.)*Mend the logs"):
        build_samples.run(spark, tables, TABLES, strict, str(tmp_path / "other"), overwrite=False)
    assert not (tmp_path / "other").exists()


def test_all_that_is_wrong_with_the_columns_is_said_at_once(spark: SparkSession, logs: Path) -> None:
    fields = (
        Field("a", "user", 9, source="custmer"),
        Field("b", "user", 9, source="seen"),
        Field("c", "user", 9, multi=True, weighted=True, source="customer"),
        Field("d", "item", 9, source="match_strength"),
        Field("e", "item", 9, multi=True, weighted=True, source="tags"),
        Field("f", "item", 9, weighted=True, source="match"),
    )
    tables = TableLogs.open(spark, str(logs / "impressions"), str(logs / "contexts"), "parquet")
    numbers = (Number("n", "user", source="seen"), Number("m", "item", source="tags"))
    schema = Schema("wrong", fields, tables=Tables("context", "match", "tags", "bought"), numbers=numbers)
    with pytest.raises(InputError) as of_contexts:
        tables.packed(spark, schema, SETTINGS, None)
    with pytest.raises(InputError) as of_impressions:
        tables.packed(
            spark, replace(schema, fields=(FIELDS[0], *fields[3:]), numbers=numbers[1:]), SETTINGS, None
        )
    for error, parts in (
        (
            of_contexts,
            [
                "4 mistake(s) in its columns",
                "seen: expected numbers, found array<struct<id:int,weight:double>>",
                "custmer: there is no such column (did you mean customer?)",
                "field b needs multi: true",
                "customer: expected an array, found bigint",
            ],
        ),
        (
            of_impressions,
            [
                "6 mistake(s) in its columns",
                "tags: expected numbers, found array<string>",
                "match: expected whole numbers, found string",
                "tags: expected 0 and 1 or a boolean, found array<string>",
                "match_strength: expected ids, whole numbers or strings, found float",
                "field e is weighted: expected (id, weight) structs, a map, or a weight_source",
                "field f is weighted and needs a weight_source",
            ],
        ),
    ):
        for part in parts:
            assert part in str(error.value)


def test_logs_and_schema_must_be_of_one_kind() -> None:
    text, tables = ["--skeleton", "a", "--common", "b"], ["--impressions", "a"]
    cut = replace(FIELDS[3], max_length=5)
    unlike = Schema("words", (Field("a", "user", 9), Field("b", "item", 9)))
    for logs, schema, message in (
        (text, TABLES, "expected one of text logs, found one with a section tables"),
        (tables, unlike, "expected a section tables"),
        (text, replace(NUMBERED, tables=None), "expected numbers for tables only, found age, price"),
        (text, replace(TEXT, fields=(*FIELDS[:3], cut)), "max_length for tables only, found 210"),
        (text, unlike, "expected fields named by three digits"),
        ([], TEXT, "found none"),
        ([*text, *tables], TEXT, "found --skeleton, --common, --impressions"),
        (text[:2], TEXT, "found --skeleton"),
    ):
        with pytest.raises(InputError, match=message):
            require_logs(build_samples.parse_arguments([*logs, "--out", "c"]), schema)
    require_logs(build_samples.parse_arguments([*text, "--out", "c"]), TEXT)
    require_logs(build_samples.parse_arguments([*tables, "--out", "c"]), TABLES)


def test_what_is_no_table_is_named(spark: SparkSession, tmp_path: Path) -> None:
    for name, kind in ((str(tmp_path / "nowhere"), "parquet"), ("no_such_table", "table")):
        with pytest.raises(InputError, match=f"{name}: expected a table of format {kind}, found none"):
            TableLogs.open(spark, name, None, kind)
