"""How an id table comes about in Spark: counts of ids, what is kept of them, the bucket of each.

Nothing but figures per field reaches the driver, however many ids there are.
"""

import json
import math
from typing import Any

from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from jobs.id_tables.count_source import IdCountSource
from jobs.id_tables.count_tables import count_parts
from jobs.raw_logs.files import LogFile, files_to_json
from jobs.raw_logs.source import task_bytes
from jobs.raw_logs.text_logs import TextLogs
from jobs.raw_tables.source import TableLogs
from jobs.samples_config import SamplesConfig
from jobs.session import spark_path
from schemas import ids
from schemas.hashing import POSITIVE
from schemas.schema import Schema
from storage.filesystems import filesystem

SEEN_AT_LEAST = (2, 5, 20)
ROWS_PER_FILE = 2_000_000


def count(
    spark: SparkSession, logs: TextLogs | TableLogs, schema: Schema, config: SamplesConfig
) -> DataFrame:
    """(field, id, count) of every id of the logs, once each, and of the lines: see `token_counter`."""
    if isinstance(logs, TableLogs):
        parts = count_parts(logs, schema, config.hash_seed)
    else:
        parts = _of_text(spark, logs.files, schema, config.raw_bytes_per_task)
    return parts.groupBy("field", "id").agg(F.sum("count").alias("count"))


def _of_text(spark: SparkSession, files: list[LogFile], schema: Schema, most_bytes: int) -> DataFrame:
    spark.dataSource.register(IdCountSource)
    range_bytes = task_bytes(files, most_bytes, spark.sparkContext.defaultParallelism)
    source = spark.read.format(IdCountSource.name()).options(
        files=files_to_json(files), range_bytes=str(range_bytes), schema=json.dumps(schema.to_dict())
    )
    return source.load()


def of_field(values: list[Any], kind: str) -> Column:
    """The value of each row's field; values: one per field, in the order of the schema."""
    return F.get(F.array(*(F.lit(value).cast(kind) for value in values)), F.col("field"))


def sizes(counted: DataFrame, settings: ids.IdSettings) -> list[Row]:
    """Per field the ids and tokens: all, kept, and seen at least so often."""
    least = of_field([settings.least_count(name) for name in settings.buckets], "bigint")
    kept = F.col("count") >= F.greatest(F.lit(1), least)
    figures = [_size(F.lit(True), ""), _size(kept, "kept_")]
    figures += [_size(F.col("count") >= n, f"seen_{n}_") for n in SEEN_AT_LEAST]
    return counted.groupBy("field").agg(*(column for pair in figures for column in pair)).collect()


def _size(condition: Column, prefix: str) -> tuple[Column, Column]:
    tokens = F.sum(F.when(condition, F.col("count")).otherwise(0))
    return F.count_if(condition).alias(f"{prefix}ids"), tokens.alias(f"{prefix}tokens")


def place(counted: DataFrame, settings: ids.IdSettings) -> DataFrame:
    """(field, id, count, bucket) of all kept ids; see `schemas.ids` for what they are."""
    least = of_field([settings.least_count(name) for name in settings.buckets], "bigint")
    kept = counted.where((F.col("field") >= 0) & (F.col("count") >= least))
    exact = of_field([settings.mode(name) == "vocabulary" for name in settings.buckets], "boolean")
    # Only the small fields are ranked: a window puts a whole field into one task.
    by_count = Window.partitionBy("field").orderBy(F.desc("count"), "id")
    ranked = kept.where(exact).withColumn("bucket", F.row_number().over(by_count) + (ids.FIRST_KNOWN - 1))
    hashed = kept.where(~exact).withColumn("bucket", hashed_bucket(settings))
    return hashed.unionByName(ranked)


def hashed_bucket(settings: ids.IdSettings) -> Column:
    """`schemas.hashing.bucket`, in fields with a table `known_bucket`, in Spark's own functions."""
    hashed = F.col("id")
    if settings.keys == "raw":
        names = of_field(list(settings.buckets), "string")
        hashed = F.xxhash64(F.lit(settings.hash_seed).cast("bigint"), names, "id").bitwiseAND(F.lit(POSITIVE))
    first = [1 if settings.mode(name) == "hash" else ids.FIRST_KNOWN for name in settings.buckets]
    free = [size - n for size, n in zip(settings.buckets.values(), first, strict=True)]
    return (of_field(first, "bigint") + hashed % of_field(free, "bigint")).cast("int")


def collisions(placed: DataFrame) -> list[Row]:
    """Per field the buckets in use, and the ids that share theirs with another one."""
    by_bucket = placed.groupBy("field", "bucket").agg(F.count(F.lit(1)).alias("ids"))
    shared = F.sum(F.when(F.col("ids") > 1, F.col("ids")).otherwise(0))
    return by_bucket.groupBy("field").agg(F.count(F.lit(1)).alias("used"), shared.alias("shared")).collect()


def write_table(placed: DataFrame, settings: ids.IdSettings, num_rows: int, folder: str) -> None:
    """The known ids of the fields with a table as Parquet, sorted by field and id."""
    has_table = of_field([settings.mode(name) != "hash" for name in settings.buckets], "boolean")
    names = of_field(list(settings.buckets), "string")
    rows = placed.where(has_table).select(names.alias("field"), "id", "count", "bucket")
    num_files = max(1, math.ceil(num_rows / ROWS_PER_FILE))
    ordered = rows.repartitionByRange(num_files, "field", "id").sortWithinPartitions("field", "id")
    ordered.write.mode("append").option("compression", "zstd").parquet(spark_path(folder))


def checksums(spark: SparkSession, folder: str) -> dict[str, int]:
    """What the content of a written table comes to, whatever the order of its rows."""
    hashed = F.xxhash64("field", "id", "bucket")
    low = F.sum(hashed.bitwiseAND(F.lit((1 << 31) - 1)))
    fs, path = filesystem(folder)
    files = [fs.unstrip_protocol(name) for name in fs.glob(f"{path}/*.parquet")]
    rows = spark.read.parquet(*files)  # Spark warns about the folder, whose name is hidden
    found = rows.agg(F.count(F.lit(1)).alias("rows"), F.bit_xor(hashed).alias("xor"), low.alias("sum"))
    return {name: int(value or 0) for name, value in found.collect()[0].asDict().items()}
