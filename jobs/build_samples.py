"""Raw Ali-CCP logs to samples: one Parquet row per group of impressions that share a context.

    python -m jobs.build_samples --skeleton 'raw/sample_skeleton_train*.csv' \\
        --common 'raw/common_features_train*.csv' --out samples/split=train --config configs/demo.yaml

    # a day's folder with the part files of both sides
    python -m jobs.build_samples --skeleton logs/ds=2025-11-22 --common logs/ds=2025-11-22 \\
        --out samples/ds=2025-11-22

    # tables instead of text, with the schema of their columns
    python -m jobs.build_samples --impressions shop/impressions --contexts shop/contexts \\
        --schema configs/schemas/shop.yaml --out samples/shop
"""

import argparse
import json
import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from cli.option_help import add_help_options
from jobs import progress
from jobs.profiling.config import ProfileConfig
from jobs.raw_logs.files import files_to_json, find_logs
from jobs.raw_logs.id_lookup import load
from jobs.raw_logs.packed_rows import KIND_QUARANTINED
from jobs.raw_logs.source import SPARK_OPTIONS
from jobs.raw_logs.text_logs import TextLogs
from jobs.raw_tables.arguments import add_arguments, require_logs
from jobs.raw_tables.source import TableLogs
from jobs.sample_writer import rejected
from jobs.sample_writer.sink import ATTEMPTS, WHOLE, SampleSink
from jobs.sample_writer.warm_up import compile_kernels
from jobs.samples_config import SLOTS, SamplesConfig, load_samples_config
from jobs.session import spark_session, task_errors_as_input_errors
from schemas import ids, manifest, schema_file
from schemas.hashing import POSITIVE
from schemas.raw_log import REASON_MEANING
from schemas.schema import Schema
from storage import outputs, staging
from storage.filesystems import filesystem

LOG = logging.getLogger(__name__)

STAGES = ("reading the logs", "sorting and writing samples")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.build_samples", __doc__)
    add_arguments(parser)
    parser.add_argument("--out", required=True, help="folder of samples to publish")
    schema_file.add_option(parser)
    parser.add_argument(
        "--config", help="YAML file whose section `samples` is used; default: built-in settings"
    )
    parser.add_argument(
        "--valid-out",
        help="folder for a validation part: the share samples.valid_share of the contexts, kept out of --out",
    )
    parser.add_argument(
        "--ids",
        metavar="DIR",
        help="id table of jobs.build_ids, for samples.min_count and samples.vocabulary",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace samples that are already there")
    add_help_options(parser, {"samples": SamplesConfig, "profile": ProfileConfig})
    return parser.parse_args(argv)


def check_validation(settings: SamplesConfig, valid_out: str | None) -> None:
    """A folder for the validation part needs a share."""
    if valid_out and not settings.valid_share:
        raise InputError(
            f"--valid-out {valid_out}: expected samples.valid_share above 0 in the configuration, found 0."
        )


def refuse_taken(outs: list[str], overwrite: bool) -> None:
    """Stop before any work where an output, or the folder for broken lines, could not be written."""
    outputs.refuse_nested(outs)
    for out in outs:
        outputs.refuse_taken(out, manifest.OUTPUT, overwrite)
    rejected.refuse_foreign(outs[0])


def stage(
    spark: SparkSession,
    logs: TextLogs | TableLogs,
    schema: Schema,
    settings: SamplesConfig,
    staged: list[str],
    id_table: ids.Reference | None,
) -> None:
    """Read, shuffle by context, sort and write everything into the staging folders, one per part."""
    for folder in staged:
        fs, path = filesystem(f"{folder}/{ATTEMPTS}")
        fs.makedirs(path)
    rows = logs.packed(spark, schema, settings, id_table)
    num_files = max(1, round(logs.text_bytes / settings.raw_bytes_per_file))
    with_validation = len(staged) > 1
    spark.dataSource.register(SampleSink)
    ordered = in_writing_order(rows, settings, num_files, with_validation)
    writer = ordered.write.format(SampleSink.name()).options(
        files=files_to_json(logs.files),
        schema=json.dumps(schema.to_dict()),
        hash_seed=str(settings.hash_seed),
        id_table=json.dumps(id_table),
        staging=json.dumps(staged),
        cut_share=str(settings.valid_share if with_validation else 0),
        impressions_per_row=str(settings.impressions_per_row),
        rows_per_row_group=str(settings.rows_per_row_group),
    )
    LOG.info("building samples of %d files, %.0f MB", len(logs.files), logs.num_bytes / 1e6)
    with progress.shown(spark, STAGES, logs.num_bytes):
        writer.mode("append").save()


def in_writing_order(
    rows: DataFrame, settings: SamplesConfig, num_files: int, with_validation: bool
) -> DataFrame:
    """Packed rows with their part, a partition per file; see `jobs.sample_writer.sink` for the order."""
    parts = rows.withColumn("part", part_of_context(settings, with_validation))
    return parts.repartition(num_files, "key").sortWithinPartitions("part", "key", "kind", "order")


def part_of_context(settings: SamplesConfig, with_validation: bool) -> Column:
    """0 training, 1 validation: a hash of the context decides, so that no context is in both parts."""
    if not with_validation:
        return F.lit(0).cast("tinyint")
    slot = F.xxhash64(F.lit(settings.hash_seed).cast("long"), F.lit("validation"), "key").bitwiseAND(
        F.lit(POSITIVE)
    ) % F.lit(SLOTS)
    is_valid = (F.col("kind") != F.lit(KIND_QUARANTINED)) & (slot < round(settings.valid_share * SLOTS))
    return F.when(is_valid, 1).otherwise(0).cast("tinyint")


def check(parts: list[manifest.Manifest], settings: SamplesConfig, outs: list[str]) -> None:
    """Stop before publishing where too many lines are broken, counted over all parts, or one is empty."""
    quarantine = parts[0]["quarantine"]
    num_broken = sum(quarantine.values())
    num_good = sum(part["counts"]["impressions"] for part in parts)
    share = num_broken / max(1, num_broken + num_good)
    nothing = f"nothing was published to {' and '.join(outs)}"
    if not num_good or share > settings.max_broken_share:
        raise InputError(
            f"{nothing}: {num_broken} of {num_broken + num_good} lines are broken "
            f"({share:.2%}, allowed are {settings.max_broken_share:.2%}), {num_good} impressions are good.\n"
            f"{explain(quarantine, outs[0])}Mend the logs, or raise samples.max_broken_share."
        )
    for out, part in zip(outs, parts, strict=True):
        if not part["counts"]["impressions"]:
            raise InputError(
                f"{nothing}: {out} would hold none of the {num_good} impressions. Change "
                f"samples.valid_share, found {settings.valid_share:g}, or build without --valid-out."
            )


def explain(quarantine: dict[str, int], out: str) -> str:
    """The reasons for which lines are broken, and where these are now."""
    if not quarantine:
        return ""
    counts = "\n".join(f"  {reason}: {n} ({REASON_MEANING[reason]})" for reason, n in quarantine.items())
    text = f"{counts}\nThe broken lines are in {rejected.folder_of(out)}. "
    if orphans := quarantine.get("no_common_record"):
        text += f"{orphans} impressions lack their common record: is a part of the common files missing? "
    return text


def publish(staged: list[str], outs: list[str], overwrite: bool) -> None:
    """Put the parts in their places, the validation part first: `manifest.require_apart` knows why."""
    for out in outs if len(outs) > 1 else ():  # neither is published where the other could not be
        outputs.refuse_taken(out, manifest.OUTPUT, overwrite)
    for folder, out in reversed(list(zip(staged, outs, strict=True))):
        outputs.publish(f"{folder}/{WHOLE}", out, manifest.OUTPUT, overwrite)


def summary(published: list[manifest.Manifest], outs: list[str], seconds: float) -> str:
    lines = [content(made, out) for made, out in zip(published, outs, strict=True)]
    raw = published[0]["source"]["bytes"]
    megabytes = raw / 1e6 if isinstance(raw, int) else 0.0
    files = [file for made in published for file in made["files"]]
    lines.append(
        f"{megabytes:,.0f} MB of raw logs to {sum(file['bytes'] for file in files) / 1e6:,.0f} MB "
        f"in {len(files)} files, {seconds:.1f} s, {megabytes / seconds:.0f} MB/s"
    )
    lines += [f"quarantined {n:,}: {reason}" for reason, n in published[0]["quarantine"].items()]
    return "\n".join(lines)


def content(published: manifest.Manifest, out: str) -> str:
    counts = published["counts"]
    return (
        f"{out}: {counts['impressions']:,} impressions of {counts['contexts']:,} contexts "
        f"in {counts['rows']:,} rows, {counts['clicks']:,} clicks, {counts['conversions']:,} conversions"
    )


def run(
    spark: SparkSession,
    logs: TextLogs | TableLogs,
    schema: Schema,
    settings: SamplesConfig,
    out: str,
    overwrite: bool,
    valid_out: str | None = None,
    ids_folder: str | None = None,
) -> None:
    """Build the samples of some logs and publish them whole, the validation part first."""
    id_table = ids.require_fit(ids_folder, settings.id_settings(schema))
    outs = [out] if valid_out is None else [out, valid_out]
    refuse_taken(outs, overwrite)
    begin = time.monotonic()
    with ExitStack() as stack:
        staged = [stack.enter_context(staging.beside(folder)) for folder in outs]
        with task_errors_as_input_errors(writing=out):
            stage(spark, logs, settings.sized(schema), settings, staged, id_table)
        parts = [manifest.read_staged(f"{folder}/{WHOLE}") for folder in staged]
        try:
            check(parts, settings, outs)
        except InputError:
            rejected.keep(f"{staged[0]}/{WHOLE}", out)
            raise
        publish(staged, outs, overwrite)
    rejected.forget(out)
    print(summary(parts, outs, time.monotonic() - begin), flush=True)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    schema = schema_file.read(args.schema)
    require_logs(args, schema)
    settings = load_samples_config(args.config, schema)
    check_validation(settings, args.valid_out)
    id_table = ids.require_fit(args.ids, settings.id_settings(schema))
    known = load(id_table, settings.sized(schema))  # whether it is whole, before Spark starts
    refuse_taken([args.out] + ([args.valid_out] if args.valid_out else []), args.overwrite)
    text = None if args.impressions else TextLogs(find_logs(args.skeleton, args.common))
    spark = spark_session("esmm build_samples", **SPARK_OPTIONS)
    try:
        if str(spark.sparkContext.master).startswith("local"):  # elsewhere the workers do not see our cache
            compile_kernels(schema, known)
        logs = text or TableLogs.open(spark, args.impressions, args.contexts, args.format)
        run(spark, logs, schema, settings, args.out, args.overwrite, args.valid_out, args.ids)
    finally:
        spark.stop()


if __name__ == "__main__":
    exit_with_message(main)
