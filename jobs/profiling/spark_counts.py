"""The Spark half of jobs.profile_samples: counts of tasks in, a few numbers per field out.

The driver receives one row per field and kind of count, and one per field and bin.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from jobs.profiling import merge, tally
from jobs.profiling import tasks as profile_tasks
from jobs.profiling.tally import BUCKET
from jobs.profiling.tasks import Work
from schemas.hashing import RARE
from schemas.manifest import Manifest
from schemas.schema import Schema

# Every task hands on the counts of all buckets: few large ones, though enough for all cores.
MOST_BYTES_PER_TASK = 256 << 20
BINS = 20
UNUSED = -1  # the bin of buckets that the ranking half does not use


def plan_work(ours: bool, folder: str, files: list[tuple[str, int]], parallelism: int) -> list[Work]:
    """Files with their bytes dealt to tasks in order. A file is never cut, so that no context is."""
    fair = -(-sum(size for _, size in files) // max(1, parallelism))
    limit = min(MOST_BYTES_PER_TASK, fair)
    tasks: list[list[str]] = []
    room = 0
    for name, size in files:
        if not tasks or room < size // 2:
            tasks.append([])
            room = limit
        tasks[-1].append(f"{folder.rstrip('/')}/{name}")
        room -= size
    return [Work(ours, tuple(task)) for task in tasks]


def work_of(spark: SparkSession, ours: bool, folder: str, content: Manifest) -> list[Work]:
    """The tasks of a sample set."""
    files = [(file["name"], file["bytes"]) for file in content["files"]]
    return plan_work(ours, folder, files, spark.sparkContext.defaultParallelism)


def _positions(spark: SparkSession, work: list[Work]) -> DataFrame:
    return spark.range(0, len(work), 1, max(1, len(work)))


@contextmanager
def counted(spark: SparkSession, work: list[Work], schema: Schema) -> Iterator[DataFrame]:
    """All counts, in rows of `merge`: some per list length and some hundred per chunk of buckets."""
    count = profile_tasks.counter_of(work, schema)
    parts = _positions(spark, work).mapInArrow(count, tally.SPARK_SCHEMA)
    keys = ("kind", "field", "value")
    ordered = parts.repartition(*keys).sortWithinPartitions(*keys)
    table = ordered.mapInArrow(merge.merge, merge.SPARK_SCHEMA)
    table.persist()
    try:
        yield table
    finally:
        table.unpersist()


def summarise(table: DataFrame) -> dict[tuple[int, int], Row]:
    """By (kind, field): what is known of the values of that kind. See `profile_fields.NOTHING`."""
    ours = F.col("ours")
    value = F.col("value")
    num = F.col("num")
    against = F.col("ranking") + F.col("theirs")
    unseen = (ours > 0) & (against == 0)
    # Percentiles of buckets would mean nothing.
    number = F.when(F.col("kind") != BUCKET, value)
    rows = table.groupBy("kind", "field").agg(
        F.sum(ours).alias("ours"),
        F.sum(against).alias("against"),
        F.sum(ours * number).alias("sum"),
        F.max(F.when(ours > 0, value)).alias("max"),
        F.percentile(number, F.array(F.lit(0.5), F.lit(0.99)), ours).alias("percentiles"),
        _sum_where(value > 0, ours).alias("above_zero"),
        _sum_where(value == 0, F.col("theirs")).alias("theirs_zero"),
        _sum_where(ours > 0, num).alias("used"),
        _sum_where(value == RARE, ours).alias("rare"),
        _sum_where(F.col("ranking") > 0, num).alias("ranking_used"),
        _sum_where(unseen, num).alias("unseen_used"),
        _sum_where(unseen, ours).alias("unseen"),
        F.min("low").alias("low"),
        F.max("high").alias("high"),
        F.sum("total").alias("total"),
    )
    return {(row["kind"], row["field"]): row for row in rows.collect()}


def _sum_where(condition: Column, value: Column) -> Column:
    return F.sum(F.when(condition, value).otherwise(0))


def binned(table: DataFrame, few_used: list[int]) -> dict[int, list[tuple[int, int]]]:
    """By field: (tokens of the samples, of `theirs`) in bins of buckets, as `ranking` ranks them.

    The buckets that `ranking` uses, the frequent ones first, are cut into `BINS` bins or fewer of about
    equal shares of its tokens, equal counts together; the buckets it does not use are one more.
    few_used: fields of which it uses at most FEW_BUCKETS; there each of them is a bin.
    """
    few = F.col("field").isin(few_used)
    used = F.col("ranking") > 0
    each = (F.col("ranking") / F.col("num")).alias("each")
    # A field has at most sqrt(2 tokens) different counts: few enough for a window.
    ranks = (
        table.filter(F.col("kind") == BUCKET)
        .groupBy("field", each, F.when(few & used, F.col("value")).otherwise(0).alias("single"))
        .agg(*(F.sum(name).alias(name) for name in ("ours", "ranking", "theirs")))
    )
    rows = (
        ranks.withColumn("bin", _bin_of(few))
        .groupBy("field", "bin")
        .agg(F.sum("ours").alias("ours"), F.sum("theirs").alias("theirs"))
    )
    found: dict[int, list[tuple[int, int]]] = {}
    for row in rows.orderBy("field", "bin").collect():
        found.setdefault(row["field"], []).append((row["ours"], row["theirs"]))
    return found


def _bin_of(few: Column) -> Column:
    """The bin of buckets of one rank: by the share of `ranking` that the more frequent ones hold."""
    whole = Window.partitionBy("field")
    tokens = F.sum("ranking")
    ranked = whole.orderBy(F.desc("each"), "single")
    before = F.coalesce(tokens.over(ranked.rowsBetween(Window.unboundedPreceding, -1)), F.lit(0))
    number = F.floor(before * BINS / F.greatest(tokens.over(whole), F.lit(1)))
    used = F.when(few, F.row_number().over(ranked)).otherwise(number)
    return F.when(F.col("ranking") > 0, used).otherwise(UNUSED)


def num_duplicates(spark: SparkSession, work: list[Work], schema: Schema) -> int:
    """Impressions beyond the first of their sample_id."""
    leaf = "string" if schema.sample_id_type == "string" else "long"
    ids = _positions(spark, work).mapInArrow(profile_tasks.sample_ids_of(work), f"sample_id {leaf}")
    counts = ids.groupBy("sample_id").count()
    row = counts.agg(F.sum(F.col("count") - 1).alias("again")).collect()[0]
    return int(row["again"] or 0)
