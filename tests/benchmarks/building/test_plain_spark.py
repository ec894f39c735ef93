"""The plain route on hand-written lines, against values worked out by hand and by schemas.hashing."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from benchmarks.building.plain_spark import plain_samples
from schemas import hashing, samples
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS, IMPRESSION_FIELDS, USER_FIELDS

SEED = 7
SCHEMA = ALI_CCP.with_buckets({field.name: 100 + index for index, field in enumerate(FIELDS)})
FIRST, SECOND, WITHOUT_RECORD = "00000000000000aa", "00000000000000bb", "00000000000000cc"

Features = list[tuple[str, int, str]]


def bucket(name: str, feature_id: int) -> int:
    return hashing.bucket(name, feature_id, SCHEMA.buckets[name], SEED)


def feature_list(features: Features) -> str:
    return "\x01".join(f"{name}\x02{feature_id}\x03{value}" for name, feature_id, value in features)


def skeleton(sample_id: int, click: int, conversion: int, context: str, features: Features) -> str:
    return f"{sample_id},{click},{conversion},{context},{len(features)},{feature_list(features)}\n"


def common(context: str, features: Features) -> str:
    return f"{context},{len(features)},{feature_list(features)}\n"


@pytest.fixture(scope="module")
def rows(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    folder: Path = tmp_path_factory.mktemp("raw")
    lines = [
        # Out of the order of sample_id, and multi-valued 210 around another field.
        skeleton(
            9, 1, 1, FIRST, [("210", 5, "1.0"), ("205", 77, "1.0"), ("210", 4, "1.0"), ("508", 3, "0.69315")]
        ),
        skeleton(
            2, 0, 0, FIRST, [("301", 1, "1.0"), ("853", 8, "1.5"), ("853", 6, "0.25"), ("210", 4, "1.0")]
        ),
        skeleton(3, 1, 0, FIRST, [("205", 78, "1.0")]),
        skeleton(4, 0, 1, FIRST, [("205", 79, "1.0")]),
        skeleton(5, 0, 1, WITHOUT_RECORD, [("205", 80, "1.0")]),
        skeleton(10, 0, 0, SECOND, [("205", 77, "1.0")]),
    ]
    (folder / "skeleton.csv").write_text("".join(lines))
    history: Features = [("110_14", 12, "2.5"), ("101", 1234567, "1.0"), ("110_14", 11, "0.69315")]
    (folder / "common.csv").write_text(common(FIRST, history) + common(SECOND, [("121", 1, "1.0")]))
    paths = (str(folder / "skeleton.csv"), str(folder / "common.csv"))
    return {row["context_id"]: row for row in plain_samples(spark, *paths, SCHEMA, SEED).collect()}


def values(row: Row, name: str, suffix: str = "column") -> Any:
    return row[getattr(FIELDS[SCHEMA.index[name]], suffix)]


def test_columns_are_those_of_the_samples(rows: dict[str, Row]) -> None:
    assert set(rows) == {FIRST, SECOND}
    assert list(rows[FIRST].asDict()) == [column.name for column in samples.columns(SCHEMA)]


def test_types_are_those_of_the_samples(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("skeleton.csv", "common.csv"):
        (tmp_path / name).write_text("")
    paths = (str(tmp_path / "skeleton.csv"), str(tmp_path / "common.csv"))
    made = plain_samples(spark, *paths, SCHEMA, SEED).schema
    found = [(column.name, column.dataType.simpleString()) for column in made]
    assert found == [(column.name, column.dataType.simpleString()) for column in samples.spark_schema(SCHEMA)]


def test_impressions_in_order_and_contradictory_labels_dropped(rows: dict[str, Row]) -> None:
    row = rows[FIRST]
    assert (row["sample_id"], row["click"], row["conversion"]) == ([2, 3, 9], [0, 1, 1], [0, 0, 1])
    assert rows[SECOND]["sample_id"] == [10]


def test_context_fields(rows: dict[str, Row]) -> None:
    row = rows[FIRST]
    assert row["user_id"] == 1234567
    assert values(row, "101") == bucket("101", 1234567)
    assert values(row, "110_14") == [bucket("110_14", 12), bucket("110_14", 11)]
    assert values(row, "110_14", "weight_column") == pytest.approx([2.5, 0.69315])
    empty = {f.name for f in USER_FIELDS if f.name not in ("101", "110_14")}
    assert all(values(row, name) in (0, []) for name in empty)


def test_missing_user_is_null(rows: dict[str, Row]) -> None:
    row = rows[SECOND]
    assert row["user_id"] is None
    assert values(row, "101") == 0
    assert values(row, "121") == bucket("121", 1)


def test_single_valued_impression_fields(rows: dict[str, Row]) -> None:
    row = rows[FIRST]
    assert values(row, "205") == [0, bucket("205", 78), bucket("205", 77)]
    assert values(row, "301") == [bucket("301", 1), 0, 0]
    assert values(row, "508") == [0, 0, bucket("508", 3)]
    assert values(row, "508", "weight_column") == pytest.approx([0.0, 0.0, 0.69315])


def test_multi_valued_impression_fields(rows: dict[str, Row]) -> None:
    row = rows[FIRST]
    assert values(row, "210") == [bucket("210", 4), bucket("210", 5), bucket("210", 4)]
    assert values(row, "210", "length_column") == [1, 0, 2]
    assert values(row, "853") == [bucket("853", 8), bucket("853", 6)]
    assert values(row, "853", "length_column") == [2, 0, 0]
    assert values(row, "853", "weight_column") == [1.5, 0.25]


def test_every_impression_field_has_an_entry_per_impression(rows: dict[str, Row]) -> None:
    for field in IMPRESSION_FIELDS:
        column = field.length_column if field.multi else field.column
        assert len(rows[FIRST][column]) == 3
