"""Raw Ali-CCP logs to samples: one Parquet row per group of impressions that share a context."""

import argparse
import json
import sys
import time
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark.sql import SparkSession

from jobs.config import SamplesConfig, load_samples_config
from jobs.raw_files import LogFile, files_to_json, find_logs
from jobs.raw_source import RawLogSource
from jobs.sample_sink import SampleSink
from jobs.session import spark_session, task_errors_as_input_errors
from jobs.warm_up import compile_kernels
from schemas import manifest, samples, storage
from schemas.errors import InputError, exit_with_message
from schemas.raw_log import REASON_MEANING

EXAMPLE = """example:
  python -m jobs.build_samples --skeleton 'raw/sample_skeleton_train*.csv' \\
      --common 'raw/common_features_train*.csv' --out samples/split=train --config configs/demo.yaml
"""

# Blobs are large (a common record about 5 kB), so few rows make a batch of some megabytes.
SPARK_OPTIONS = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "2048",
    "spark.driver.memory": "2g",
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "jobs.build_samples",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--skeleton", required=True, help="sample skeletons: a file or glob, .csv or .csv.gz")
    parser.add_argument("--common", required=True, help="common features: a file or glob, .csv or .csv.gz")
    parser.add_argument("--out", required=True, help="folder of samples to publish")
    parser.add_argument(
        "--config", help="YAML file whose section `samples` is used; default: built-in settings"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace samples that are already there")
    return parser.parse_args()


def stage(spark: SparkSession, files: list[LogFile], settings: SamplesConfig, staging: str) -> None:
    """Parse, shuffle by context, sort and write everything into the staging folder."""
    spark.dataSource.register(RawLogSource)
    spark.dataSource.register(SampleSink)
    options = {
        "files": files_to_json(files),
        "hash_seed": str(settings.hash_seed),
        "buckets": json.dumps(settings.all_buckets()),
    }
    num_files = max(1, round(sum(file.size for file in files) / settings.raw_bytes_per_file))
    range_bytes = task_bytes(files, settings.raw_bytes_per_task, spark.sparkContext.defaultParallelism)
    rows = spark.read.format(RawLogSource.name()).options(range_bytes=str(range_bytes), **options).load()
    writer = (
        rows.repartition(num_files, "key")
        .sortWithinPartitions("key", "kind", "order")
        .write.format(SampleSink.name())
        .options(
            impressions_per_row=str(settings.impressions_per_row),
            rows_per_row_group=str(settings.rows_per_row_group),
            **options,
        )
    )
    fs, path = storage.filesystem(staging)
    with task_errors_as_input_errors():
        writer.mode("append").save(fs.unstrip_protocol(path))


def task_bytes(files: list[LogFile], most: int, parallelism: int) -> int:
    """Bytes for one parsing task: `most`, or less where that would leave cores idle."""
    return max(1 << 20, min(most, -(-sum(file.size for file in files) // (2 * parallelism))))


def check(staged: manifest.Manifest, settings: SamplesConfig, out: str, staging: str) -> None:
    """Stop before publishing where too many lines are broken or none is left."""
    num_broken, num_good = sum(staged["quarantine"].values()), staged["counts"]["impressions"]
    share = num_broken / max(1, num_broken + num_good)
    if num_good and share <= settings.max_broken_share:
        return
    kept = f"{out.rstrip('/')}.rejected"
    storage.discard(kept)
    fs, source = storage.filesystem(f"{staging}/{samples.QUARANTINE_FOLDER}")
    if num_broken:
        fs.mv(source, storage.filesystem(kept)[1], recursive=True)
    counts = "\n".join(
        f"  {reason}: {n} ({REASON_MEANING[reason]})" for reason, n in staged["quarantine"].items()
    )
    where = f"The broken lines are in {kept}. " if num_broken else ""
    raise InputError(
        f"nothing was published to {out}: {num_broken} of {num_broken + num_good} lines are broken "
        f"({share:.2%}, allowed are {settings.max_broken_share:.2%}), {num_good} impressions are good.\n"
        f"{counts}\n{where}Mend the logs, or raise samples.max_broken_share."
    )


def summary(published: manifest.Manifest, out: str, seconds: float) -> str:
    counts, raw = published["counts"], published["source"]["bytes"]
    megabytes = raw / 1e6 if isinstance(raw, int) else 0.0
    written = sum(file["bytes"] for file in published["files"]) / 1e6
    content = (
        f"{out}: {counts['impressions']:,} impressions of {counts['contexts']:,} contexts "
        f"in {counts['rows']:,} rows, {counts['clicks']:,} clicks, {counts['conversions']:,} conversions"
    )
    work = (
        f"{megabytes:,.0f} MB of raw logs to {written:,.0f} MB in {len(published['files'])} files, "
        f"{seconds:.1f} s, {megabytes / seconds:.0f} MB/s"
    )
    lines = [content, work]
    lines += [f"quarantined {n:,}: {reason}" for reason, n in published["quarantine"].items()]
    return "\n".join(lines)


def run(
    spark: SparkSession, files: list[LogFile], settings: SamplesConfig, out: str, overwrite: bool
) -> None:
    """Build the samples of some raw files and publish them whole."""
    storage.refuse_complete(out, overwrite)
    staging = storage.staging_name(out)
    fs, path = storage.filesystem(staging)
    begin = time.monotonic()
    fs.makedirs(path)
    try:
        stage(spark, files, settings, staging)
        staged = manifest.read_staged(staging)
        check(staged, settings, out, staging)
        storage.publish(staging, out)
    finally:
        storage.discard(staging)
    print(summary(staged, out, time.monotonic() - begin), flush=True)


def main() -> None:
    args = parse_args()
    settings = load_samples_config(args.config)
    storage.refuse_complete(args.out, args.overwrite)
    files = find_logs(args.skeleton, args.common)
    compile_kernels()
    spark = spark_session("esmm build_samples", **SPARK_OPTIONS)
    try:
        run(spark, files, settings, args.out, args.overwrite)
    finally:
        spark.stop()


if __name__ == "__main__":
    exit_with_message(main)
