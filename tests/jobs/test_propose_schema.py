"""Proposed schemas: of the shop's tables one that trains, of others what can be told and what can't."""

import datetime
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from cli.errors import InputError
from esmm import predict as predict_command
from esmm import train as train_command
from esmm.predict import predict
from esmm.training_run import train
from jobs import build_samples, propose_schema
from jobs.demo_logs.options import ShopOptions
from jobs.make_demo_logs import make_shop
from jobs.raw_tables.source import TableLogs
from jobs.samples_config import SamplesConfig
from jobs.schema_proposal.proposal import Proposal
from schemas import manifest, schema_file
from schemas.fields import Field
from schemas.numbers import Number
from schemas.schema import Schema
from tests.fixtures.workers import ONE_WORKER

PROJECT = Path(__file__).resolve().parents[2]
SHOP = schema_file.read(str(PROJECT / "configs/schemas/shop.yaml"))
SETTINGS = SamplesConfig(max_broken_share=0.05, rows_per_row_group=16)
TEXT, WHOLE = pa.string(), pa.int64()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "raw"
    make_shop(str(folder), ShopOptions(contexts=120, seed=3), overwrite=False)
    return folder


def proposed(
    spark: SparkSession, out: Path, impressions: Path, contexts: Path | None, *more: str
) -> Proposal:
    words = ["--impressions", str(impressions), "--out", str(out), *more]
    words += ["--contexts", str(contexts)] if contexts else []
    return propose_schema.run(spark, propose_schema.parse_arguments(words))


@pytest.fixture(scope="module")
def of_shop(spark: SparkSession, raw: Path) -> tuple[Path, Proposal]:
    out = raw.parent / "proposed.yaml"
    return out, proposed(spark, out, raw / "impressions_train", raw / "contexts_train")


def by_source(schema: Schema) -> dict[str, Field]:
    return {field.source or field.name: field for field in schema.fields}


def test_the_shops_proposal_is_a_schema_like_the_shops_own(of_shop: tuple[Path, Proposal], raw: Path) -> None:
    out, proposal = of_shop
    assert proposal.missing == []
    schema = schema_file.read(str(out))
    assert schema.name == "proposed"
    assert schema.tables == SHOP.tables
    assert (schema.user_id, schema.item_id) == ("customer_id", "product_id")
    own, found = by_source(SHOP), by_source(schema)
    assert own.keys() == found.keys()
    for source, field in own.items():
        # A field of user and item together is one of the context, as far as counts can tell.
        side = "context" if field.side == "cross" else field.side
        expected = replace(
            field, side=side, name=source, source=None, meaning="", max_length=None, keep="first"
        )
        assert asdict(replace(found[source], buckets=field.buckets)) == asdict(expected)
    sides = {number.name: number.side for number in schema.numbers}
    assert sides == {number.name: number.side for number in SHOP.numbers}
    tables = [pd.read_parquet(raw / f"{name}_train") for name in ("impressions", "contexts")]
    for source in ("product_id", "product_brand", "customer_id"):
        [column] = [table[source] for table in tables if source in table]
        assert 2 * column.nunique() <= max(64, found[source].buckets) < 5 * max(64, column.nunique())


def test_what_was_guessed_of_the_shop_is_said(of_shop: tuple[Path, Proposal]) -> None:
    text = of_shop[0].read_text()
    assert "# CHECK: category_visits is taken for its weights" in text
    assert text.count("# CHECK: cross, if it is of user and item together") == 2
    assert "rows without a click have it" in text
    assert "TODO" not in text.partition("name:")[2]


@pytest.mark.slow
def test_the_shops_proposal_trains_and_predicts(
    of_shop: tuple[Path, Proposal], raw: Path, spark: SparkSession, tmp_path: Path
) -> None:
    schema = schema_file.read(str(of_shop[0]))
    for split in ("train", "test"):
        logs = TableLogs.open(
            spark, str(raw / f"impressions_{split}"), str(raw / f"contexts_{split}"), "parquet"
        )
        build_samples.run(spark, logs, schema, SETTINGS, str(tmp_path / split), overwrite=False)
    made = manifest.read(str(tmp_path / "train"))
    assert set(made["quarantine"]) == {"conversion_without_click", "null_key"}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"model": {"embedding_dim": 4, "towers": [8]}, "train": {"epochs": 1}}))
    words = [
        "--config",
        config,
        "--train",
        tmp_path / "train",
        "--valid",
        tmp_path / "test",
        "--run",
        tmp_path / "run",
    ]
    train(ONE_WORKER, train_command.parse_arguments([str(word) for word in words]))
    words = ["--run", tmp_path / "run", "--samples", tmp_path / "test", "--out", tmp_path / "predictions"]
    predict(ONE_WORKER, predict_command.parse_arguments([str(word) for word in words]))
    rows = pq.read_table(str(tmp_path / "predictions"), partitioning=None)
    assert len(rows) == manifest.read(str(tmp_path / "test"))["counts"]["impressions"] > 0


def flat_rows(num: int = 90) -> dict[str, tuple[pa.DataType, list[Any]]]:
    """Impressions of users on visits, three on each, with a column of every kind."""
    rng = random.Random(1)
    visit = [i // 3 for i in range(num)]
    item = [rng.randrange(25) for _ in range(num)]
    click = [int(rng.random() < 0.4) for _ in range(num)]
    buy = [c * int(rng.random() < 0.5) for c in click]
    when = datetime.datetime(2025, 11, 22)
    return {
        "row": (WHOLE, list(range(num))),
        "group": (TEXT, [f"g{v}" for v in visit]),
        "userId": (WHOLE, [v % 7 for v in visit]),
        "country": (TEXT, [("de", "fr")[v % 7 % 2] for v in visit]),
        "ids of.things": (pa.list_(WHOLE), [[i, 99] for i in item]),
        "sku": (WHOLE, item),
        "price": (pa.float64(), [1.0 if i else 1000.0 for i in item]),
        "shown": (TEXT, [rng.choice("abc") for _ in range(num)]),
        "isClick": (pa.int32(), click),
        "purchased": (pa.bool_(), [bool(b) for b in buy]),
        "seconds_read": (WHOLE, [rng.randrange(1, 9) if c else 0 for c in click]),
        "only_one": (TEXT, ["x"] * num),
        "at": (pa.timestamp("us"), [when] * num),
        "nothing": (TEXT, [None] * num),
        "is_new": (pa.bool_(), [rng.random() < 0.5 for _ in range(num)]),
        "inner": (pa.struct([("kind", TEXT)]), [{"kind": rng.choice("pq")} for _ in range(num)]),
        "terms": (pa.list_(TEXT), [["t"] * rng.randrange(3) for _ in range(num)]),
        "term_scores": (pa.list_(pa.float32()), []),
        "scores": (pa.map_(TEXT, pa.float64()), [[(rng.choice("uv"), -0.5)] for _ in range(num)]),
    }


def write_table(path: Path, columns: dict[str, tuple[pa.DataType, list[Any]]]) -> Path:
    table = pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def of_flat(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Proposal]:
    folder = tmp_path_factory.mktemp("flat")
    columns = flat_rows()
    terms = columns["terms"][1]
    columns["term_scores"] = columns["term_scores"][0], [[0.5] * len(row) for row in terms]
    path = write_table(folder / "flat.parquet", columns)
    return path, proposed(spark, folder / "flat.yaml", path, None)


def test_sides_of_a_flat_table_are_what_columns_vary_within(of_flat: tuple[Path, Proposal]) -> None:
    """Its context is no column with a telling name: it is what determines the user."""
    path, proposal = of_flat
    schema = schema_file.read(str(path.with_suffix(".yaml")))
    tables = schema.tables
    assert tables is not None
    assert (tables.context_id, tables.sample_id, tables.sample_id_type) == ("group", "row", "int64")
    assert (tables.click, tables.conversion, tables.user_id_type) == ("isClick", "purchased", "int64")
    assert (schema.user_id, schema.item_id) == ("userId", "sku")
    assert "guessed" in proposal.roles["context_id"].note
    sides = {name: field.side for name, field in by_source(schema).items()}
    assert sides == {
        "userId": "user",
        "country": "user",
        "sku": "item",
        "`ids of.things`": "item",
        "shown": "context",
        "inner.kind": "context",
        "terms": "context",
        "scores": "context",
    }
    assert by_source(schema)["`ids of.things`"].name == "ids_of_things"


def test_kinds_of_columns(of_flat: tuple[Path, Proposal]) -> None:
    path, proposal = of_flat
    fields = by_source(schema_file.read(str(path.with_suffix(".yaml"))))
    assert (fields["terms"].multi, fields["terms"].weight_source) == (True, "term_scores")
    assert fields["scores"].multi and fields["scores"].weighted
    left_out = {one.field.name: one.checks for one in proposal.fields if one.is_left_out}
    assert left_out.keys() == {"seconds_read", "only_one"}
    assert "only after the click" in left_out["seconds_read"][-1]
    reasons = dict(proposal.left_out)
    assert reasons.keys() == {"at", "nothing", "is_new"}
    assert reasons["at"] == "timestamp_ntz is no id, number or list of them"
    [number] = proposal.numbers
    assert (number.name, number.side, number.log1p) == ("price", "item", True)
    schema = schema_file.read(str(path.with_suffix(".yaml")))
    assert schema.numbers == (Number("price", "item", log1p=True),)
    lines = path.with_suffix(".yaml").read_text().splitlines()
    [line] = [line for line in lines if "name: price" in line]
    assert line.startswith("  - {name: price, side: item, log1p: true}  # 1 to 1000, mean ")
    assert any("weights below 0, the least is -0.5" in line for line in lines)


@pytest.mark.slow
def test_samples_can_be_built_of_columns_with_strange_names(
    of_flat: tuple[Path, Proposal], spark: SparkSession, tmp_path: Path
) -> None:
    path, _ = of_flat
    schema = schema_file.read(str(path.with_suffix(".yaml")))
    schema = replace(
        schema, fields=tuple(f for f in schema.fields if f.source != "scores" and f.name != "scores")
    )
    logs = TableLogs.open(spark, str(path), None, "parquet")
    build_samples.run(spark, logs, schema, SETTINGS, str(tmp_path / "samples"), overwrite=False)
    assert manifest.read(str(tmp_path / "samples"))["counts"]["impressions"] == 90


def test_what_is_missing_is_named_in_the_file_and_by_the_command(spark: SparkSession, tmp_path: Path) -> None:
    num = 40
    shown = {"session": (TEXT, [f"s{i // 4}" for i in range(num)]), "thing": (TEXT, ["a", "b"] * 20)}
    contexts = {"session": (TEXT, [f"s{i}" for i in range(10)]), "what": (WHOLE, [0, 1] * 5)}
    paths = [
        write_table(tmp_path / name, table) for name, table in (("shown", shown), ("contexts", contexts))
    ]
    out = tmp_path / "out.yaml"
    proposal = proposed(spark, out, *paths)
    assert [line.partition(":")[0] for line in proposal.missing] == ["sample_id", "click", "conversion"]
    assert out.read_text().count("  # TODO: no column of") == 3
    assert "# item_id: CHECK" in out.read_text() and "# user_id: CHECK" in out.read_text()
    with pytest.raises(InputError, match=r"(?s)tables.sample_id.*tables.click.*tables.conversion"):
        schema_file.read(str(out))
    args = propose_schema.parse_arguments(["--impressions", "i", "--out", str(out)])
    assert propose_schema.summary(proposal, args).count("missing: ") == 3
    filled = out.read_text().replace("sample_id:\n", "sample_id: a\n")
    filled = filled.replace("click:\n", "click: b\n").replace("conversion:\n", "conversion: c\n")
    assert [field.name for field in schema_file.parse(filled.encode(), "filled").fields] == ["what", "thing"]


def test_whole_contexts_are_sampled_and_ids_are_extrapolated(
    spark: SparkSession, raw: Path, tmp_path: Path, of_shop: tuple[Path, Proposal]
) -> None:
    tables = raw / "impressions_train", raw / "contexts_train"
    first = proposed(spark, tmp_path / "first.yaml", *tables, "--rows", "1500")
    proposed(spark, tmp_path / "first.yaml", *tables, "--rows", "1500", "--overwrite")
    text = (tmp_path / "first.yaml").read_text()
    total = pq.read_table(str(tables[0])).num_rows
    shown, contexts = (int(line.partition(" of ")[0].replace(",", "")) for line in first.read)
    assert 500 < shown < 3000 < total and 0 < contexts < 60
    assert f"of {total:,} impressions" in text and ", about " in text
    own, found = (
        by_source(schema_file.read(str(of_shop[0]))),
        by_source(schema_file.read(str(tmp_path / "first.yaml"))),
    )
    assert found.keys() == own.keys()
    assert found["device"].buckets == own["device"].buckets
    ratio = found["product_id"].buckets / own["product_id"].buckets
    assert 0.5 <= ratio <= 4


def test_tables_that_nothing_can_be_said_of(spark: SparkSession, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    with pytest.raises(InputError, match="expected a table of format parquet, found none"):
        proposed(spark, out, tmp_path / "gone", None)
    at = (pa.date32(), [datetime.date(2025, 11, 22)])
    dates = write_table(tmp_path / "dates", {"at": at})
    with pytest.raises(InputError, match=r"expected columns of whole numbers.*found at date\."):
        proposed(spark, out, dates, None)
    empty = write_table(tmp_path / "empty", {"item": (TEXT, [])})
    with pytest.raises(InputError, match="expected a table with rows, found none"):
        proposed(spark, out, empty, None)
    keys = write_table(tmp_path / "keys", {"row_id": (WHOLE, [1, 2]), "at": (at[0], at[1] * 2)})
    with pytest.raises(InputError, match=r"can be fields, found none \(at: date is no id"):
        proposed(spark, out, keys, None)
    assert not out.exists()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"found a file, expected none there.*--overwrite"):
        propose_schema.refuse_taken(str(out), overwrite=False)
    propose_schema.refuse_taken(str(out), overwrite=True)
    with pytest.raises(InputError, match="found a folder"):
        propose_schema.refuse_taken(str(tmp_path), overwrite=True)
