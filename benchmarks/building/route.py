"""One run of one route over some raw logs, in a process of its own: started by benchmarks.building.data.

    python -m benchmarks.building.route ours --logs build/bench-data/raw-1x \\
        --warm-up build/bench-data/raw-warm-up --out /tmp/route --config configs/ali_ccp.yaml

The clock starts after Spark, and after a run over the small logs that compiles what is compiled late.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from benchmarks.building.plain_spark import plain_samples
from benchmarks.building.raw_logs import Logs, logs_in
from benchmarks.building.stage_times import EVENT_LOG_OPTIONS, stage_times
from benchmarks.building.tables import make_missing, schema_of_tables
from benchmarks.common.process_tree import busy_seconds, cpu_seconds
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from jobs import build_samples
from jobs.raw_logs import files
from jobs.raw_logs.source import SPARK_OPTIONS
from jobs.raw_logs.text_logs import TextLogs
from jobs.raw_tables.source import TableLogs
from jobs.sample_writer import warm_up
from jobs.samples_config import SamplesConfig, load_samples_config
from jobs.session import spark_session
from schemas import manifest, schema_file
from schemas.schema import Schema
from storage.json_files import write_json

ROUTES = ("ours", "tables", "plain", "polars")
RESULT_NAME = "result.json"
CORES = 2
HEAP = "2g"
# Plain Spark SQL shuffles and joins in partitions of about this much raw log; its default of 8 spills at 16x.
PLAIN_BYTES_PER_PARTITION = 32 << 20

Outcome = dict[str, Any]


def timed(work: Callable[[], Outcome]) -> Outcome:
    """Run; what it returns, with wall and processor seconds, and how many cores others kept busy."""
    cpu = cpu_seconds()
    machine = busy_seconds()
    wall = time.perf_counter()
    begin = time.time()
    outcome = work()
    wall = time.perf_counter() - wall
    end = time.time()
    machine = busy_seconds() - machine
    used = {kind: seconds - cpu[kind] for kind, seconds in cpu_seconds().items()}
    others = max(0.0, machine - sum(used.values())) / wall
    return {
        "seconds": wall, "cpu_seconds": used, "begin": begin, "end": end, "cores_of_others": others, **outcome
    }  # fmt: skip


def run_ours(args: argparse.Namespace, logs: Logs, small: Logs) -> Outcome:
    """jobs.build_samples, and where its time went."""
    return _run_ours(args, schema_file.default(), lambda spark, one: TextLogs(_find(one)), (small, logs))


def run_tables(args: argparse.Namespace, logs: Logs, small: Logs) -> Outcome:
    """The same from tables, made of the logs before the clock starts."""
    schema = schema_file.default()

    def open_tables(spark: SparkSession, one: Logs) -> TableLogs:
        made = make_missing(spark, one, schema)
        return TableLogs.open(spark, made.impressions, made.contexts, "parquet")

    return _run_ours(args, schema_of_tables(schema), open_tables, (small, logs))


def _find(logs: Logs) -> list[files.LogFile]:
    return files.find_logs(logs.skeleton, logs.common)


def _run_ours(
    args: argparse.Namespace,
    schema: Schema,
    opened: Callable[[SparkSession, Logs], TextLogs | TableLogs],
    both: tuple[Logs, Logs],
) -> Outcome:
    """Build the samples of small logs, then on the clock those of the others. opened: makes logs an input."""
    settings = load_samples_config(args.config, schema)
    warm_up.compile_kernels(schema)
    events = Path(args.out) / "events"
    events.mkdir()
    spark = _session(args.out, **EVENT_LOG_OPTIONS, **{"spark.eventLog.dir": events.resolve().as_uri()})
    try:
        small, logs = (opened(spark, one) for one in both)
        _build(spark, small, schema, settings, f"{args.out}/small")
        outcome = timed(lambda: _build(spark, logs, schema, settings, f"{args.out}/samples"))
    finally:
        spark.stop()
    outcome["input_bytes"] = logs.num_bytes
    return outcome | {"profile": stage_times(events, outcome["begin"], outcome["end"])}


def _build(
    spark: SparkSession, logs: TextLogs | TableLogs, schema: Schema, settings: SamplesConfig, out: str
) -> Outcome:
    build_samples.run(spark, logs, schema, settings, out, overwrite=False)
    made = manifest.read(out)
    return {
        "written_bytes": sum(file["bytes"] for file in made["files"]),
        "impressions": made["counts"]["impressions"],
        "quarantined": sum(made["quarantine"].values()),
    }


def run_plain(args: argparse.Namespace, logs: Logs, small: Logs) -> Outcome:
    """The plain Spark SQL route."""
    schema = schema_file.default()  # that of the drawn logs
    settings = load_samples_config(args.config, schema)
    partitions = max(4 * CORES, logs.bytes // PLAIN_BYTES_PER_PARTITION)
    spark = _session(args.out, **{"spark.sql.shuffle.partitions": str(partitions)})
    try:
        _build_plainly(spark, small, schema, settings, f"{args.out}/small")
        return timed(lambda: _build_plainly(spark, logs, schema, settings, f"{args.out}/samples"))
    finally:
        spark.stop()


def _build_plainly(
    spark: SparkSession, logs: Logs, schema: Schema, settings: SamplesConfig, out: str
) -> Outcome:
    rows = plain_samples(spark, logs.skeleton, logs.common, settings.sized(schema), settings.hash_seed)
    rows.write.option("compression", "zstd").parquet(out)
    return {"written_bytes": sum(path.stat().st_size for path in Path(out).glob("*.parquet"))}


def run_polars(args: argparse.Namespace, logs: Logs, small: Logs) -> Outcome:
    """polars, tokens only."""
    from benchmarks.building.polars_tokens import tokenise

    tokenise(small.skeleton, small.common, CORES)
    return timed(lambda: {**tokenise(logs.skeleton, logs.common, CORES)})


def _session(out: str, **conf: str) -> SparkSession:
    machine = {
        "spark.master": f"local[{CORES}]",
        "spark.driver.memory": HEAP,
        "spark.local.dir": f"{out}/spark",
    }
    return spark_session("benchmark", **(SPARK_OPTIONS | machine | conf))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.building.route", __doc__)
    parser.add_argument("route", choices=ROUTES)
    parser.add_argument("--logs", required=True, metavar="DIR", help="drawn by benchmarks.building.data")
    parser.add_argument("--warm-up", required=True, metavar="DIR", help="small logs")
    parser.add_argument("--out", required=True, metavar="DIR", help=f"replaced; gets {RESULT_NAME}")
    parser.add_argument("--config", default="configs/ali_ccp.yaml")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    shutil.rmtree(args.out, ignore_errors=True)
    Path(args.out).mkdir(parents=True)
    run = {"ours": run_ours, "plain": run_plain, "polars": run_polars, "tables": run_tables}[args.route]
    outcome = run(args, logs_in(Path(args.logs)), logs_in(Path(args.warm_up)))
    write_json(f"{args.out}/{RESULT_NAME}", outcome)


if __name__ == "__main__":
    exit_with_message(main)
