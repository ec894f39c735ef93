"""A long training on two workers, its memory watched: ten million impressions, a table of 2^24 rows.

python -m benchmarks.training.long_run --prepare    draws the logs and builds the samples (once)
make bench-long                            trains on them and prints what happened
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.building import raw_logs
from benchmarks.common.machine import machine
from benchmarks.training.train_step import enlarged
from cli.arguments import CommandParser
from cli.config_files import read_yaml
from cli.errors import exit_with_message
from cli.log import set_up_logging
from jobs.samples_config import load_samples_config
from schemas import manifest, schema_file
from storage.json_files import read_json, write_json

LOG = logging.getLogger("benchmarks.training.long_run")
EXAMPLE = """examples:
  make bench-long      (the same as: python -m benchmarks.training.long_run)
  python -m benchmarks.training.long_run --contexts 2000 --rows 1048576 --out /tmp/long \\
      --set train.batch_size=512 --set train.log_every=10      a quick look
"""
WORKERS = 2
CONTEXTS = 190_000  # 57.9 impressions each; one in twenty contexts is held back for validation
VALID_SHARE = 0.05
ROWS = 1 << 24
SECONDS_PER_SAMPLE = 0.5
FLAT = 0.02  # growth of a worker's memory over the second half of its steps that still counts as none


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("benchmarks.training.long_run", __doc__, EXAMPLE)
    parser.add_argument("--out", default="build/bench-long", help="folder for samples, run and long_run.json")
    parser.add_argument(
        "--config", default="configs/ali_ccp.yaml", help="of training; its buckets are enlarged"
    )
    parser.add_argument("--contexts", type=int, default=CONTEXTS, help="contexts drawn (default %(default)s)")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the table (default %(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="an option of training"
    )
    parser.add_argument("--prepare", action="store_true", help="draw logs and build samples, train nothing")
    return parser.parse_args(arguments)


# ---- Samples --------------------------------------------------------------------------------------------


def prepare(args: argparse.Namespace) -> None:
    """Samples of a training and a validation part, unless they are there; the logs are not kept."""
    out = Path(args.out)
    wanted = {"contexts": args.contexts, "rows": args.rows}
    marker = out / "samples.json"
    if marker.exists() and read_json(str(marker)) == wanted:
        return
    out.mkdir(parents=True, exist_ok=True)
    config = read_yaml(args.config)
    schema = schema_file.default()  # that of the logs that are drawn
    schema = enlarged(load_samples_config(args.config, schema).sized(schema), args.rows)
    config["samples"] = config.get("samples", {}) | {"valid_share": VALID_SHARE, "buckets": schema.buckets}
    (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    [logs] = raw_logs.draw_missing({out / "raw": args.contexts}).values()
    LOG.info("building samples of %.0f MB of raw logs", logs.bytes / 1e6)
    command = [sys.executable, "-m", "jobs.build_samples", "--skeleton", logs.skeleton]
    command += ["--common", logs.common, "--config", str(out / "config.yaml"), "--overwrite"]
    command += ["--out", str(out / "split=train"), "--valid-out", str(out / "split=valid")]
    subprocess.run(command, check=True)
    shutil.rmtree(out / "raw")
    write_json(str(marker), wanted)


# ---- Training, watched ----------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train; every five seconds the memory of every worker and the step it had reported by then."""
    out = Path(args.out)
    launcher = ["horovodrun", "-np", str(WORKERS), "-H", f"localhost:{WORKERS}"]
    command = [*launcher, sys.executable, "-m", "esmm.train", "--config", str(out / "config.yaml")]
    command += ["--train", str(out / "split=train"), "--valid", str(out / "split=valid")]
    command += ["--run", str(out / "run")]
    # Gone before it is made again: --overwrite would keep the old one's log until the first checkpoint.
    shutil.rmtree(out / "run", ignore_errors=True)
    for setting in args.set:
        command += ["--set", setting]
    LOG.info("training; its log: %s", out / "train.log")
    begin = time.monotonic()
    samples = []
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // WORKERS))}
    with (out / "train.log").open("w") as log, subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env=environment
    ) as process:  # fmt: skip
        try:
            while process.poll() is None:
                resident = worker_memory(process.pid)
                step = last_step(out / "run/train.jsonl")
                samples.append({"seconds": time.monotonic() - begin, "step": step, "resident": resident})
                time.sleep(SECONDS_PER_SAMPLE)
        except BaseException:
            process.terminate()  # horovodrun ends its workers
            raise
    if process.returncode:
        raise RuntimeError(f"training ended with {process.returncode}, see {out / 'train.log'}")
    return samples


def worker_memory(launcher: int) -> dict[str, int]:
    """Resident bytes by rank, of the workers that are running."""
    found: dict[str, int] = {}
    for process in psutil.Process(launcher).children(recursive=True):
        try:
            rank = process.environ().get("HOROVOD_RANK")
            if rank is not None and process.name().startswith("python"):
                found[rank] = max(found.get(rank, 0), process.memory_info().rss)
        except psutil.Error:  # it has ended
            continue
    return found


def last_step(log: Path) -> int:
    """The step of the newest line of train.jsonl; 0 where there is none."""
    if not log.exists():
        return 0
    lines = log.read_text().splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else 0


# ---- Summary --------------------------------------------------------------------------------------------


def summary(samples: list[dict[str, Any]], entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the log's entries and the memory samples: speed, loss, AUC, and memory over the second half."""
    reports = [entry for entry in entries if entry["kind"] == "train"]
    last = [entry for entry in entries if entry["kind"] == "epoch"][-1]
    steps = reports[-1]["step"]
    second_half = [sample for sample in samples if steps / 2 <= sample["step"] < steps]
    return {
        "steps": steps,
        "train_seconds": last["train_seconds"],
        "impressions_per_second": statistics.median(entry["impressions_per_second"] for entry in reports),
        "first_losses": [reports[0]["loss_ctr"], reports[0]["loss_ctcvr"]],
        "last_losses": [reports[-1]["loss_ctr"], reports[-1]["loss_ctcvr"]],
        "auc": {name: last.get(name) for name in ("auc_ctr", "auc_cvr", "auc_ctcvr")},
        "memory": {str(rank): _memory(second_half, str(rank)) for rank in range(WORKERS)},
    }


def _memory(samples: list[dict[str, Any]], rank: str) -> dict[str, Any]:
    """Megabytes; growth is the later half's median over the earlier half's, minus 1."""
    megabytes = [sample["resident"][rank] / 1e6 for sample in samples if rank in sample["resident"]]
    if len(megabytes) < 2:
        raise RuntimeError(f"the training was too short to watch its memory: {len(megabytes)} sample(s)")
    half = len(megabytes) // 2
    growth = statistics.median(megabytes[half:]) / statistics.median(megabytes[:half]) - 1
    return {
        "min": min(megabytes),
        "median": statistics.median(megabytes),
        "max": max(megabytes),
        "growth": growth,
        "flat": growth <= FLAT,
    }


def table(results: dict[str, Any]) -> str:
    """The summary for a person."""
    found = results["summary"]
    measured_on = results["machine"]
    aucs = ", ".join(f"{name} {value:.4f}" for name, value in found["auc"].items() if value is not None)
    (ctr, ctcvr) = found["first_losses"]
    (last_ctr, last_ctcvr) = found["last_losses"]
    seconds = found["train_seconds"]
    rate = found["impressions_per_second"]
    lines = [
        f"{measured_on['date']}, {measured_on['processor']}, {measured_on['cores']} cores, {WORKERS} workers",
        f"{results['impressions']:,} impressions, table of {results['rows']:,} rows",
        f"{found['steps']:,} steps in {seconds:,.0f} s, median {rate:,.0f} impressions/s",
        f"loss CTR {ctr:.5f} -> {last_ctr:.5f}, CTCVR {ctcvr:.5f} -> {last_ctcvr:.5f}; validation {aucs}",
        "resident memory over the second half of the steps:",
    ]
    for rank, memory in found["memory"].items():
        low, middle, high = (memory[name] for name in ("min", "median", "max"))
        verdict = "flat" if memory["flat"] else "NOT flat"
        lines.append(
            f"  rank {rank}: {low:,.0f} to {high:,.0f} MB, median {middle:,.0f}, "
            f"growth {memory['growth']:+.2%}: {verdict}"
        )
    return "\n".join(lines)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Prepare, train, write long_run.json; its content."""
    out = Path(args.out)
    prepare(args)
    samples = train(args)
    entries = [json.loads(line) for line in (out / "run/train.jsonl").read_text().splitlines()]
    folder = str(out / "split=train")
    made = manifest.read(folder)
    results = {
        "machine": machine(),
        "impressions": made["counts"]["impressions"],
        "rows": manifest.schema_of(made).num_rows,
        "summary": summary(samples, entries),
        "samples": samples,
    }
    write_json(str(out / "long_run.json"), results)
    return results


def main() -> None:
    args = parse_args()
    set_up_logging()
    if args.prepare:
        prepare(args)
    else:
        print(f"\n{table(run(args))}\nAll figures: {args.out}/long_run.json", flush=True)


if __name__ == "__main__":
    exit_with_message(main)
