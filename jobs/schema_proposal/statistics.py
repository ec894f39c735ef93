"""What Spark counts of a table's columns; nothing but counts comes back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.schema_proposal.columns import Column, evened

ERROR = 0.02  # relative, of counts of distinct values
SLOTS = 1 << 20
NEARLY_ALL = 0.99  # of a key's rows have a value of their own: some rows may be there twice


class Stats(NamedTuple):
    """Of one column in the rows that were read.

    values: that are not null, all of a list. distinct: of these, about; of_half: in one half of the rows.
    low, high, mean: of numbers, whole ones too, and of weights.
    """

    rows: int
    nulls: int
    values: int = 0
    distinct: int = 0
    of_half: int = 0
    longest: int = 0
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    is_unique: bool = False


@dataclass(frozen=True)
class Sample:
    """Rows of a table, the N-th of its usable columns as `cN`. total: rows of the whole table."""

    frame: DataFrame
    columns: tuple[Column, ...]
    rows: int
    total: int

    def column(self, source: str) -> SparkColumn:
        places = {column.source: place for place, column in enumerate(self.columns)}
        return F.col(f"c{places[source]}")


def take(table: DataFrame, columns: Iterable[Column], key: str | None, share: float, most: int) -> Sample:
    """So much of a table: whole contexts by a hash of their key, or the first rows where no key is known.

    share: of the contexts. most: rows without a key.
    """
    usable = tuple(column for column in columns if column.kind != "other")
    rows = table.select(*(evened(column).alias(f"c{place}") for place, column in enumerate(usable)))
    whole = Sample(rows, usable, 0, table.count())
    if share < 1 and key is not None:
        rows = rows.where(F.pmod(F.xxhash64(F.lit(0), whole.column(key)), F.lit(SLOTS)) < share * SLOTS)
    elif share < 1:
        rows = rows.limit(most)
    kept = rows.persist()
    return Sample(kept, usable, kept.count(), whole.total)


def describe(sample: Sample) -> dict[str, Stats]:
    """By source: what is in each column."""
    plain = _one(sample, [item for place, c in enumerate(sample.columns) for item in _plain(place, c)])
    counts = _distinct(sample)
    found = {}
    for place, column in enumerate(sample.columns):
        parts = {name: plain[f"{name}_{place}"] for name in ("nulls", "longest", "low", "high", "mean")}
        values, distinct, of_half = counts.get(place, (0, 0, 0))
        found[column.source] = Stats(sample.rows, **parts, values=values, distinct=distinct, of_half=of_half)
    return _with_unique(sample, found)


def _plain(place: int, column: Column) -> list[SparkColumn]:
    stands = F.col(f"c{place}")
    nothing = F.lit(None).cast("double")
    is_list = column.kind in ("ids", "weighted", "weights")
    low = high = mean = nothing
    if column.kind == "weights" or column.kind == "weighted":
        weights = stands if column.kind == "weights" else stands["weight"]
        low, high = F.min(F.array_min(weights)), F.max(F.array_max(weights))
    elif column.kind in ("number", "flag") or column.is_whole:
        number = stands.cast("double")
        low, high, mean = F.min(number), F.max(number), F.mean(F.when(~F.isnan(number), number))
    return [
        F.count_if(stands.isNull()).alias(f"nulls_{place}"),
        (F.coalesce(F.max(F.size(stands)), F.lit(0)) if is_list else F.lit(1)).alias(f"longest_{place}"),
        low.alias(f"low_{place}"),
        high.alias(f"high_{place}"),
        mean.alias(f"mean_{place}"),
    ]


def _distinct(sample: Sample) -> dict[int, tuple[int, int, int]]:
    """By place: values, distinct ones, and those of one half of the rows, all columns in one pass.

    A sketch for each column beside all others would be a row of thousands of columns for Spark.
    """
    hashed = F.array(*(_hashes(place, column) for place, column in enumerate(sample.columns)))
    all_columns = F.xxhash64(F.lit(1), *(F.col(f"c{place}") for place in range(len(sample.columns))))
    lists = sample.frame.select((all_columns >= 0).alias("half"), F.posexplode(hashed).alias("place", "list"))
    rows = lists.select("half", "place", F.explode("list").alias("hash")).where("hash is not null")
    counts = rows.groupBy("place").agg(
        F.count(F.lit(1)),
        F.approx_count_distinct("hash", ERROR),
        F.approx_count_distinct(F.when(F.col("half"), F.col("hash")), ERROR),
    )
    return {place: (values, distinct, half) for place, values, distinct, half in counts.collect()}


def _hashes(place: int, column: Column) -> SparkColumn:
    """Hashes of a row's values as an array, null for null."""
    stands = F.col(f"c{place}")
    if column.kind in ("ids", "weighted", "weights"):
        values = stands["id"] if column.kind == "weighted" else stands
        return F.transform(values, _hash)
    return F.array(_hash(stands))


def _hash(value: SparkColumn) -> SparkColumn:
    return F.when(value.isNotNull(), F.xxhash64(value))


def _with_unique(sample: Sample, found: dict[str, Stats]) -> dict[str, Stats]:
    """Whether ids are all different, counted exactly where the sketch does not say no."""
    ids = [c.source for c in sample.columns if c.kind == "id"]
    maybe = [name for name in ids if found[name].distinct > 0.9 * found[name].values > 0]
    exact = _one(sample, [F.count_distinct(sample.column(name)) for name in maybe])
    for name, distinct in zip(maybe, exact, strict=True):
        is_unique = distinct >= NEARLY_ALL * found[name].values and not found[name].nulls
        found[name] = found[name]._replace(distinct=distinct, is_unique=is_unique)
    return found


class Varying(NamedTuple):
    """Of the values of a key that two rows or more have: how many, and by source in how many it varies."""

    keys: int
    varies: Mapping[str, int]


def varying(sample: Sample, key: str, others: Iterable[str]) -> Varying:
    """In how many values of a key each of the other columns has more than one value, null being one."""
    sources = [source for source in others if source != key]
    known = sample.frame.where(sample.column(key).isNotNull())
    groups = known.groupBy(sample.column(key)).agg(
        F.count(F.lit(1)).alias("rows"), *(_differs(sample, s).alias(f"v{i}") for i, s in enumerate(sources))
    )
    row = groups.where("rows > 1").agg(
        F.count(F.lit(1)), *(F.count_if(F.col(f"v{i}")) for i in range(len(sources)))
    )
    keys, *varies = row.collect()[0]
    return Varying(keys, dict(zip(sources, varies, strict=True)))


def constant_where(sample: Sample, condition: SparkColumn, sources: Iterable[str]) -> set[str]:
    """Which columns have one value, null or not, in all rows of a condition."""
    names = list(sources)
    row = sample.frame.where(condition).agg(F.count(F.lit(1)), *(_differs(sample, name) for name in names))
    rows, *differs = row.collect()[0]
    return {name for name, differs in zip(names, differs, strict=True) if rows and not differs}


def _differs(sample: Sample, source: str) -> SparkColumn:
    value = F.xxhash64(sample.column(source))
    return F.min(value) != F.max(value)


def counted(sample: Sample, conditions: Mapping[tuple[str, str], SparkColumn]) -> dict[tuple[str, str], int]:
    """By pair of columns: in how many rows its condition holds."""
    row = _one(sample, [F.count_if(condition) for condition in conditions.values()])
    return dict(zip(conditions, row, strict=True))


def _one(sample: Sample, aggregates: list[SparkColumn]) -> Any:
    return sample.frame.agg(*aggregates).collect()[0] if aggregates else ()
