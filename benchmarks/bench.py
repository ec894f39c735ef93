"""The speed of every stage on the demo's data and this machine, in one run: `make bench`."""

import argparse
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.building.plain_spark import plain_samples
from benchmarks.common.machine import machine
from benchmarks.training import loader, train_step
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from jobs import build_samples
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.source import SPARK_OPTIONS
from jobs.raw_logs.text_logs import TextLogs
from jobs.sample_writer import warm_up
from jobs.samples_config import SamplesConfig, load_samples_config
from jobs.session import spark_session
from schemas import manifest, schema_file
from schemas.schema import Schema
from storage import publishing
from storage.json_files import write_json

LOG = logging.getLogger("bench")
EXAMPLE = "example:\n  make bench      (the same as: python -m benchmarks.bench --out build/bench)\n"
BATCH_SIZES = (1024, 8192)


def parse_args() -> argparse.Namespace:
    parser = CommandParser("benchmarks.bench", __doc__, EXAMPLE)
    parser.add_argument("--out", default="build/bench", help="folder for logs, samples and bench.json")
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each route from raw logs to samples")
    return parser.parse_args()


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def draw_logs(raw: Path) -> dict[str, float]:
    """The demo's logs, drawn once and kept."""
    if publishing.is_complete(str(raw)):
        return {}
    LOG.info("drawing raw logs")
    command = [sys.executable, "-m", "jobs.make_demo_logs", "--out", str(raw), "--overwrite"]
    seconds = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    return {"seconds": seconds, "megabytes": sum(path.stat().st_size for path in raw.glob("*_*.csv")) / 1e6}


def measure_samples(out: Path, schema: Schema, settings: SamplesConfig, repeats: int) -> dict[str, Any]:
    """Raw logs to samples, ours and the plain Spark SQL route in turn; the start of Spark is not counted."""
    skeleton, common = (str(out / f"raw/{name}_train.csv") for name in ("sample_skeleton", "common_features"))
    files = raw_files.find_logs(skeleton, common)
    warm_up.compile_kernels(schema)
    spark = spark_session("bench", **(SPARK_OPTIONS | {"spark.master": "local[2]"}))

    def ours() -> None:
        build_samples.run(spark, TextLogs(files), schema, settings, str(out / "samples"), overwrite=True)

    def plain() -> None:
        table = plain_samples(spark, skeleton, common, settings.sized(schema), settings.hash_seed)
        table.write.mode("overwrite").option("compression", "zstd").parquet(str(out / "plain"))

    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    try:
        for repeat in range(repeats):
            LOG.info("raw logs to samples, run %d of %d", repeat + 1, repeats)
            seconds["ours"].append(timed(ours))
            seconds["plain"].append(timed(plain))
    finally:
        spark.stop()
    return _samples_figures(sum(file.size for file in files) / 1e6, seconds, str(out / "samples"))


def _samples_figures(megabytes: float, seconds: dict[str, list[float]], samples: str) -> dict[str, Any]:
    ours, plain = (statistics.median(seconds[route]) for route in ("ours", "plain"))
    written = sum(file["bytes"] for file in manifest.read(samples)["files"]) / 1e6
    return {
        "raw_megabytes": megabytes,
        "megabytes_per_second": megabytes / ours,
        "plain_megabytes_per_second": megabytes / plain,
        "ratio": plain / ours,
        "size_of_raw": written / megabytes,
        "seconds": seconds,
    }


def table(results: dict[str, Any]) -> str:
    """The figures for a person."""
    samples, measured_on = results["samples"], results["machine"]
    raw = (
        f"raw logs to samples   {samples['megabytes_per_second']:10,.0f} MB/s of raw log "
        f"({samples['ratio']:.1f} x plain Spark SQL's {samples['plain_megabytes_per_second']:.1f}), "
        f"{samples['size_of_raw']:.1%} of the raw size"
    )
    lines = [f"{measured_on['date']}, {measured_on['processor']}, {measured_on['cores']} cores", raw]
    for name, unit in (
        ("loader", "impressions/s alone"),
        ("train", "impressions/s, one worker, batches in memory"),
    ):
        for size in BATCH_SIZES:
            found = results[name][str(size)]["impressions_per_second"]
            lines.append(f"{name:<8} batch {size:>6}  {found:10,.0f} {unit}")
    return "\n".join(lines)


def main() -> None:
    args = parse_args()
    set_up_logging()
    out = Path(args.out)
    results: dict[str, Any] = {"machine": machine(), "logs": draw_logs(out / "raw")}
    schema = schema_file.default()
    settings = load_samples_config(args.config, schema)
    results["samples"] = measure_samples(out, schema, settings, args.repeats)
    for name, measure in (("loader", loader.measure), ("train", train_step.measure)):
        LOG.info("%s", name)
        results[name] = {str(size): measure(str(out / "samples"), size) for size in BATCH_SIZES}
    write_json(str(out / "bench.json"), results)
    print(f"\n{table(results)}\nAll figures: {out / 'bench.json'}", flush=True)


if __name__ == "__main__":
    exit_with_message(main)
