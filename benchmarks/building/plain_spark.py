"""Raw logs to samples in plain Spark SQL: the yardstick for jobs.build_samples, and its oracle in a test.

    python -m benchmarks.building.plain_spark --skeleton raw/sample_skeleton_train.csv \\
        --common raw/common_features_train.csv --out plain_samples

Nothing but Spark's own functions: `split` and `transform` parse a line once, `filter` picks each field,
`xxhash64` gives the bucket, a group and a join bring impressions and context together. It expects clean
logs, drops conversions without click and impressions without a common record, and splits no context.
"""

import argparse
from collections.abc import Iterator

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from jobs.session import spark_path, spark_session
from schemas import raw_log, samples, schema_file
from schemas.fields import Field
from schemas.hashing import POSITIVE
from schemas.schema import Schema

SKELETON = (
    "sample_id long, click byte, conversion byte, context_id string, feature_num int, feature_list string"
)
COMMON = "context_id string, feature_num int, feature_list string"


def plain_samples(
    spark: SparkSession, skeleton_path: str, common_path: str, schema: Schema, seed: int
) -> DataFrame:
    """The columns of `schemas.samples`, one row per context; impressions in the order of sample_id,
    the values of a multi-valued field in the order of the raw line."""
    skeleton = read_lines(spark, skeleton_path, SKELETON).where("not (click = 0 and conversion = 1)")
    common = read_lines(spark, common_path, COMMON)
    context = common.select("context_id", *_context_columns(schema, seed))
    groups = _group_impressions(skeleton, schema, seed)
    return groups.join(context, "context_id").select(*_sample_columns(schema))


def read_lines(spark: SparkSession, path: str, layout: str) -> DataFrame:
    """The lines of a raw log, with `features`: array of (field string, id long, value float)."""
    lines = spark.read.csv(spark_path(path), schema=layout, quote="", escape="")
    features = F.split("feature_list", raw_log.FEATURE_SEPARATOR.decode())
    return lines.withColumn("features", F.transform(features, _parse_feature))


def _parse_feature(feature: Column) -> Column:
    id_separator = raw_log.ID_SEPARATOR.decode()
    value_separator = raw_log.VALUE_SEPARATOR.decode()
    name = F.substring_index(feature, id_separator, 1)
    id_and_value = F.substring_index(feature, id_separator, -1)
    return F.struct(
        name.alias("field"),
        F.substring_index(id_and_value, value_separator, 1).cast("long").alias("id"),
        F.substring_index(id_and_value, value_separator, -1).cast("float").alias("value"),
    )


def bucket(field: Field, feature_id: Column, seed: int) -> Column:
    """`schemas.hashing.bucket` in Spark's own functions."""
    hashed = F.xxhash64(F.lit(seed).cast("long"), F.lit(field.name), feature_id)
    return (1 + hashed.bitwiseAND(F.lit(POSITIVE)) % (field.buckets - 1)).cast("int")


def _field_columns(field: Field, seed: int) -> Iterator[Column]:
    """Bucket and weight of a single-valued field (0 where missing), or the lists of a multi-valued one."""
    own = F.filter("features", lambda feature: feature["field"] == field.name)
    if field.multi:
        buckets_of_own = F.transform(own, lambda feature: bucket(field, feature["id"], seed))
        weights = own["value"]
    else:
        first = F.get(own, F.lit(0))
        buckets_of_own = F.when(first.isNotNull(), bucket(field, first["id"], seed)).otherwise(0)
        weights = F.coalesce(first["value"], F.lit(0.0).cast("float"))
    yield buckets_of_own.alias(field.column)
    if field.weighted:
        yield weights.alias(field.weight_column)


def _context_columns(schema: Schema, seed: int) -> Iterator[Column]:
    user = F.filter("features", lambda feature: feature["field"] == F.lit(schema.user_id))
    yield F.get(user, F.lit(0))["id"].alias("user_id")
    for field in schema.user_fields:
        yield from _field_columns(field, seed)


def _group_impressions(skeleton: DataFrame, schema: Schema, seed: int) -> DataFrame:
    """(context_id, impressions): all impressions of a context as structs, sorted by sample_id."""
    fields = [column for field in schema.impression_fields for column in _field_columns(field, seed)]
    impressions = skeleton.select(
        "context_id", F.struct("sample_id", "click", "conversion", *fields).alias("one")
    )
    return impressions.groupBy("context_id").agg(F.sort_array(F.collect_list("one")).alias("impressions"))


def _sample_columns(schema: Schema) -> Iterator[Column]:
    """The columns of the samples from those of a context and the structs of its impressions."""
    from_impressions = {name: F.col(f"impressions.{name}") for name in ("sample_id", "click", "conversion")}
    for field in schema.impression_fields:
        names = [field.column] + ([field.weight_column] if field.weighted else [])
        for name in names:
            values = F.col(f"impressions.{name}")
            from_impressions[name] = F.flatten(values) if field.multi else values
        if field.multi:
            from_impressions[field.length_column] = F.transform(f"impressions.{field.column}", F.size)
    for column in samples.columns(schema):
        yield from_impressions.get(column.name, F.col(column.name)).alias(column.name)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.building.plain_spark", __doc__)
    parser.add_argument("--skeleton", required=True, metavar="PATH")
    parser.add_argument("--common", required=True, metavar="PATH")
    parser.add_argument("--out", required=True, metavar="DIR", help="replaced if there")
    parser.add_argument("--seed", type=int, default=0, help="of the hash")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    spark = spark_session("plain_spark", **{"spark.driver.memory": "4g"})
    try:
        rows = plain_samples(spark, args.skeleton, args.common, schema_file.default(), args.seed)
        rows.write.parquet(spark_path(args.out), mode="overwrite", compression="zstd")
    finally:
        spark.stop()


if __name__ == "__main__":
    exit_with_message(main)
