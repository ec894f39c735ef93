"""Raw logs to an id table: which ids are known, the bucket of each, and a report of all fields.

    python -m jobs.build_ids --skeleton 'raw/sample_skeleton_train*.csv' \\
        --common 'raw/common_features_train*.csv' --out ids --config configs/demo.yaml

    # tables instead of text, with the schema of their columns
    python -m jobs.build_ids --impressions shop/impressions --contexts shop/contexts \\
        --schema configs/schemas/shop.yaml --out ids --config configs/shop.yaml

The fields with a frequency filter (samples.min_count) or a vocabulary (samples.vocabulary) get a table;
of the others the report tells how many ids they have and how many of them share a bucket. The logs are
those of the training; jobs.build_samples --ids then uses the table for every set of samples.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark import StorageLevel
from pyspark.sql import SparkSession

from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from jobs import progress
from jobs.id_tables import count_source, count_tables, frames, report
from jobs.raw_logs.files import find_logs
from jobs.raw_logs.source import SPARK_OPTIONS
from jobs.raw_logs.text_logs import TextLogs
from jobs.raw_tables.arguments import add_arguments, require_logs
from jobs.raw_tables.source import TableLogs
from jobs.samples_config import SamplesConfig, load_samples_config
from jobs.session import spark_session, task_errors_as_input_errors
from schemas import ids, schema_file
from schemas.schema import Schema
from storage import outputs, staging
from storage.json_files import write_json

LOG = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.build_ids", __doc__)
    add_arguments(parser)
    schema_file.add_option(parser)
    parser.add_argument("--out", required=True, help="folder of the id table to publish")
    parser.add_argument(
        "--config", help="YAML file whose section `samples` is used; default: built-in settings"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an id table that is already there")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    schema = schema_file.read(args.schema)
    require_logs(args, schema)
    config = load_samples_config(args.config, schema)
    outputs.refuse_taken(args.out, ids.OUTPUT, args.overwrite)
    text = None if args.impressions else TextLogs(find_logs(args.skeleton, args.common))
    spark = spark_session("esmm build_ids", **SPARK_OPTIONS)
    try:
        if str(spark.sparkContext.master).startswith("local"):  # elsewhere the workers do not see our cache
            compile_kernels(schema)
        logs = text or TableLogs.open(spark, args.impressions, args.contexts, args.format)
        run(spark, logs, schema, config, args.out, args.overwrite)
    finally:
        spark.stop()


def compile_kernels(schema: Schema) -> None:
    """Once, before many tasks would each compile them again."""
    if schema.tables:
        count_tables.compile_kernels()
    else:
        count_source.compile_kernels(schema)


def run(
    spark: SparkSession,
    logs: TextLogs | TableLogs,
    schema: Schema,
    config: SamplesConfig,
    out: str,
    overwrite: bool,
) -> None:
    """Make the id table of some logs and publish it whole."""
    outputs.refuse_taken(out, ids.OUTPUT, overwrite)
    begin = time.monotonic()
    with staging.beside(out) as staged:
        with task_errors_as_input_errors(writing=out):
            made = build(spark, logs, schema, config, staged)
        outputs.publish(staged, out, ids.OUTPUT, overwrite)
    print(report.summary(made, out, time.monotonic() - begin), flush=True)


def build(
    spark: SparkSession, logs: TextLogs | TableLogs, schema: Schema, config: SamplesConfig, staged: str
) -> ids.IdManifest:
    """Count, check and write everything into the staging folder."""
    settings = config.id_settings(schema)
    counted = frames.count(spark, logs, schema, config).persist(StorageLevel.DISK_ONLY)
    try:
        LOG.info("counting the ids of %d files, %.0f MB", len(logs.files), logs.num_bytes / 1e6)
        with progress.shown(spark, ("reading the logs", "adding up the counts"), logs.num_bytes):
            by_field = {row["field"]: row for row in frames.sizes(counted, settings)}
        report.check(by_field, settings, config.max_broken_share)
        placed = frames.place(counted, settings)
        LOG.info("placing %s ids in buckets", f"{sum(row['kept_ids'] for row in by_field.values()):,}")
        with progress.shown(spark, ("placing ids",)):
            collisions = {row["field"]: row for row in frames.collisions(placed)}
            frames.write_table(placed, settings, report.num_known(by_field, settings), staged)
    finally:
        counted.unpersist()
    digest = ids.digest(settings, frames.checksums(spark, staged))
    reports = report.field_reports(by_field, collisions, settings)
    made = report.manifest_of(
        logs.files, config.sized(schema), settings, digest, report.lines(by_field), reports
    )
    write_json(f"{staged}/{ids.MANIFEST_NAME}", dict(made))
    return made


if __name__ == "__main__":
    exit_with_message(main)
