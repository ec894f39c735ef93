"""Raw Ali-CCP logs to an id table: which ids are known, the bucket of each, and a report of all fields.

The fields with a frequency filter (samples.min_count) or a vocabulary (samples.vocabulary) get a table;
of the others the report tells how many ids they have and how many of them share a bucket. The logs are
those of the training; jobs.build_samples --ids then uses the table for every set of samples.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark import StorageLevel
from pyspark.sql import Row, SparkSession

from cli.errors import InputError, exit_with_message
from jobs.build_samples import SPARK_OPTIONS, task_bytes
from jobs.id_tables import count_source, frames
from jobs.raw_logs.files import LogFile, add_log_arguments, find_logs
from jobs.samples_config import SamplesConfig, load_samples_config
from jobs.session import spark_session, task_errors_as_input_errors
from schemas import ids
from schemas.fields import FIELDS, Field
from schemas.hashing import HASH_NAME
from storage import outputs, staging
from storage.json_files import write_json

LOG = logging.getLogger("build_ids")

EXAMPLE = """example:
  python -m jobs.build_ids --skeleton 'raw/sample_skeleton_train*.csv' \\
      --common 'raw/common_features_train*.csv' --out ids --config configs/demo.yaml
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "jobs.build_ids",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_log_arguments(parser)
    parser.add_argument("--out", required=True, help="folder of the id table to publish")
    parser.add_argument(
        "--config", help="YAML file whose section `samples` is used; default: built-in settings"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an id table that is already there")
    return parser.parse_args()


def check(by_field: dict[int, Row], config: SamplesConfig) -> None:
    """Stop where too many lines are broken, none is good, or a vocabulary has more ids than buckets."""
    good, broken = lines(by_field)
    if not good or broken / (good + broken) > config.max_broken_share:
        raise InputError(
            f"nothing was published: {broken} of {good + broken} lines are broken, allowed is a share of "
            f"{config.max_broken_share:.2%}. jobs.build_samples on the same logs names each line and its "
            "reason. Mend the logs, or raise samples.max_broken_share."
        )
    if full := list(too_large_vocabularies(by_field, config.id_settings())):
        raise InputError(
            f"nothing was published: vocabularies with more ids than buckets: {'; '.join(full)}. Two buckets "
            "are those of missing and of rare ids. Raise samples.buckets, or keep fewer by samples.min_count."
        )


def too_large_vocabularies(by_field: dict[int, Row], settings: ids.IdSettings) -> Iterator[str]:
    """Field, ids and buckets of every vocabulary that does not fit."""
    for index, field in enumerate(FIELDS):
        if settings.mode(field.name) == "vocabulary" and index in by_field:
            known, buckets = by_field[index]["kept_ids"], settings.buckets[field.name]
            least = known + ids.FIRST_KNOWN
            if buckets < least:
                yield f"field {field.name} has {known} ids and {buckets} buckets, expected at least {least}"


def lines(by_field: dict[int, Row]) -> tuple[int, int]:
    """Good and broken lines of the logs."""
    good, broken = (by_field.get(key) for key in (count_source.GOOD_LINES, count_source.BROKEN_LINES))
    return good["tokens"] if good else 0, broken["tokens"] if broken else 0


def field_report(
    field: Field, settings: ids.IdSettings, size: Row | None, placed: Row | None
) -> ids.FieldReport:
    """The figures of one field; size, placed: its rows of id_frames.sizes and collisions, if it has ids."""
    figures = size.asDict() if size else {}
    used, shared = (placed["used"], placed["shared"]) if placed else (0, 0)
    mode, kept = settings.mode(field.name), figures.get("kept_ids", 0)
    free = settings.buckets[field.name] - (1 if mode == "hash" else ids.FIRST_KNOWN)
    return ids.FieldReport(
        mode=mode,
        tokens=figures.get("tokens", 0),
        ids=figures.get("ids", 0),
        kept_tokens=figures.get("kept_tokens", 0),
        kept_ids=kept,
        buckets=settings.buckets[field.name],
        used_buckets=used,
        bucket_fill=used / free,
        collision_rate=shared / kept if kept else 0.0,
        expected_collision_rate=0.0 if mode == "vocabulary" else ids.expected_collision_rate(kept, free),
        seen_at_least={
            str(n): {what: figures.get(f"seen_{n}_{what}", 0) for what in ("ids", "tokens")}
            for n in frames.SEEN_AT_LEAST
        },
    )


def build(spark: SparkSession, files: list[LogFile], config: SamplesConfig, staging: str) -> ids.IdManifest:
    """Count, check and write everything into the staging folder."""
    settings = config.id_settings()
    range_bytes = task_bytes(files, config.raw_bytes_per_task, spark.sparkContext.defaultParallelism)
    counted = frames.count(spark, files, range_bytes).persist(StorageLevel.DISK_ONLY)
    try:
        LOG.info("counting the ids of %d files, %.0f MB", len(files), sum(f.size for f in files) / 1e6)
        by_field = {row["field"]: row for row in frames.sizes(counted, settings)}
        check(by_field, config)
        placed = frames.place(counted, settings)
        LOG.info("placing %s ids in buckets", f"{sum(row['kept_ids'] for row in by_field.values()):,}")
        collisions = {row["field"]: row for row in frames.collisions(placed)}
        known = sum(by_field[i]["kept_ids"] for i in by_field if has_table(i, settings))
        frames.write_table(placed, settings, known, staging)
    finally:
        counted.unpersist()
    reports = {
        f.name: field_report(f, settings, by_field.get(i), collisions.get(i)) for i, f in enumerate(FIELDS)
    }
    digest = ids.digest(settings, frames.checksums(spark, staging))
    made = manifest_of(files, settings, digest, lines(by_field), reports)
    write_json(f"{staging}/{ids.MANIFEST_NAME}", dict(made))
    return made


def has_table(index: int, settings: ids.IdSettings) -> bool:
    """Whether there is a table for the field with this index, which may be that of a count of lines."""
    return index >= 0 and settings.mode(FIELDS[index].name) != "hash"


def manifest_of(
    files: list[LogFile],
    settings: ids.IdSettings,
    digest: str,
    num_lines: tuple[int, int],
    reports: dict[str, ids.FieldReport],
) -> ids.IdManifest:
    """What `_ids.json` holds. num_lines: good and broken ones."""
    return ids.IdManifest(
        version=ids.VERSION,
        digest=digest,
        hash=HASH_NAME,
        hash_seed=settings.hash_seed,
        buckets=settings.buckets,
        min_count=settings.min_count,
        vocabulary=list(settings.vocabulary),
        lines=num_lines[0],
        broken_lines=num_lines[1],
        source={"files": [f.path for f in files], "bytes": sum(f.size for f in files)},
        fields=reports,
    )


HEADINGS = ("field", "mode", "tokens", "ids", "kept", "of tokens", "buckets", "fill", "collide", "expected")


def summary(made: ids.IdManifest, out: str, seconds: float) -> str:
    """The report for a person; `collide`: the share of kept ids that share their bucket with another one."""
    rows = [HEADINGS]
    for name, field in made["fields"].items():
        rows.append(
            (
                name,
                field["mode"],
                f"{field['tokens']:,}",
                f"{field['ids']:,}",
                f"{field['kept_ids']:,}",
                f"{field['kept_tokens'] / max(1, field['tokens']):.1%}",
                f"{field['buckets']:,}",
                f"{field['bucket_fill']:.1%}",
                f"{field['collision_rate']:.2%}",
                f"{field['expected_collision_rate']:.2%}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    size = f"{made['lines']:,} lines, {made['broken_lines']:,} broken ones left out, {seconds:.1f} s"
    return "\n".join([*table, f"{out}: id table {made['digest']} of {size}"])


def run(spark: SparkSession, files: list[LogFile], config: SamplesConfig, out: str, overwrite: bool) -> None:
    """Make the id table of some raw files and publish it whole."""
    outputs.refuse_taken(out, ids.OUTPUT, overwrite)
    begin = time.monotonic()
    with staging.beside(out) as staged:
        with task_errors_as_input_errors(writing=out):
            made = build(spark, files, config, staged)
        outputs.publish(staged, out, ids.OUTPUT, overwrite)
    print(summary(made, out, time.monotonic() - begin), flush=True)


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    config = load_samples_config(args.config)
    outputs.refuse_taken(args.out, ids.OUTPUT, args.overwrite)
    files = find_logs(args.skeleton, args.common)
    spark = spark_session("esmm build_ids", **SPARK_OPTIONS)
    try:
        if str(spark.sparkContext.master).startswith("local"):  # elsewhere the workers do not see our cache
            count_source.compile_kernels()
        run(spark, files, config, args.out, args.overwrite)
    finally:
        spark.stop()


if __name__ == "__main__":
    exit_with_message(main)
