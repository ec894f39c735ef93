"""The whole road on demo data: raw logs, samples, training on two workers, predictions, metrics, a report.

    make demo SIZE=tiny        (the same as: python -m scripts.demo --size tiny)
    make demo SCHEMA=shop      the tables of a small shop instead of text in Ali-CCP's format

Each command's output goes to a log of its own; the last lines are shown where one fails.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cli.arguments import CommandParser
from scripts.demo_stages import BIN, SIZES, STAGES_NAME, WORLDS, Stage, read_json, stages

PROJECT = Path(__file__).resolve().parents[1]
LAST_LINES = 25


class StageError(Exception):
    """A stage ended with another exit code than 0."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("scripts.demo", __doc__)
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--schema", choices=WORLDS, default="ali_ccp", help="whose logs (%(default)s)")
    parser.add_argument("--out", default="build/demo", help="the demo goes to a folder of its own in there")
    parser.add_argument("--config", help="configuration of the training; default: the schema's")
    parser.add_argument("--workers", type=int, default=2, help="Horovod workers")
    return parser.parse_args(argv)


def run_stage(number: int, total: int, stage: Stage, log: Path) -> float:
    """The seconds of a stage. Its output goes to logs; a line before and after, progress on a terminal."""
    head = f"[{number}/{total}] {stage.name}"
    live = sys.stdout.isatty()
    if not live:
        print(f"{head} ...", flush=True)
    begin = time.monotonic()
    logs = [log.with_suffix(f".{place}.log") for place in range(1, len(stage.commands) + 1)]
    with ThreadPoolExecutor(len(logs)) as pool:
        codes = list(pool.map(partial(_run_logged, head=head if live else None), stage.commands, logs))
    seconds = time.monotonic() - begin
    for command, written, code in zip(stage.commands, logs, codes, strict=True):
        if code:
            raise StageError(_failure(stage.name, command, written, code))
    print(f"{head}: {stage.outcome()}, {seconds:.1f} s -> {_short(stage.output)}", flush=True)
    return seconds


def _run_logged(command: list[str], log: Path, head: str | None) -> int:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYSPARK_PYTHON": sys.executable}
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, cwd=PROJECT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        for line in map(_without_rank, process.stdout or ()):
            stream.write(line)
            stream.flush()
            if head:
                print(f"\r\033[K{head}: {line.strip()[:90]}", end="", flush=True)
    if head:
        print("\r\033[K", end="")
    return process.returncode


def _without_rank(line: str) -> str:
    """A line as rank 0 wrote it: horovodrun names the rank, and it is the one that speaks for all."""
    return re.sub(r"^\[0\]<std(out|err)>:", "", line)


def _failure(name: str, command: list[str], log: Path, code: int) -> str:
    last = "\n".join(f"    {line}" for line in log.read_text().splitlines()[-LAST_LINES:])
    return (
        f"stage '{name}' failed with exit code {code}. The last lines of {_short(log)}:\n{last}\n"
        f"To run this stage again:\n    PATH={_short(BIN)}:$PATH {_as_text(command)}"
    )


def _as_text(command: list[str]) -> str:
    return shlex.join([_short(Path(part)) if part.startswith("/") else part for part in command])


def run_stages(todo: list[Stage], logs: Path) -> None:
    """One after the other; before each, the file has those that are done, as the report shows them."""
    done: list[dict[str, Any]] = []
    for number, stage in enumerate(todo, 1):
        (logs.parent / STAGES_NAME).write_text(json.dumps(done, indent=2) + "\n")
        name = stage.name.replace(", ", "-").replace(" ", "-")
        seconds = run_stage(number, len(todo), stage, logs / f"{number}-{name}")
        commands = " & ".join(_as_text(command) for command in stage.commands)
        done.append({"name": stage.name, "command": commands, "seconds": round(seconds, 1)})
    (logs.parent / STAGES_NAME).write_text(json.dumps(done, indent=2) + "\n")


def _short(path: Path) -> str:
    """A path below the project as seen from there."""
    absolute = path if path.is_absolute() else PROJECT / path
    return str(absolute.relative_to(PROJECT)) if absolute.is_relative_to(PROJECT) else str(path)


def table(metrics: dict[str, Any]) -> str:
    """CTR, CVR on clicked impressions and CTCVR, each beside the best that could be reached."""
    header = f"{'task':<7}{'over':<21}{'AUC':>8}{'+-':>8}{'best':>8}{'share':>8}{'rows':>11}{'positives':>11}"
    lines = [header, "-" * len(header)]
    for task, over in (
        ("ctr", "all impressions"),
        ("cvr", "clicked impressions"),
        ("ctcvr", "all impressions"),
    ):
        found = metrics[task]
        auc, best = found["auc"], found["baselines"]["truth"]["auc"]
        margin = None if auc["low"] is None else auc["value"] - auc["low"]
        shown = [(auc["value"], ".4f"), (margin, ".4f"), (best, ".4f"), (found["share_of_best"], ".0%")]
        numbers = "".join(f"{_number(value, form):>8}" for value, form in shown)
        lines.append(f"{task.upper():<7}{over:<21}{numbers}{found['rows']:>11,}{found['positives']:>11,}")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    name = args.size if args.schema == "ali_ccp" else f"{args.schema}-{args.size}"
    out = (PROJECT / args.out / name).resolve()
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    world = WORLDS[args.schema]
    todo = stages(world, SIZES[args.size], out, args.config or world.config, args.workers)
    try:
        run_stages(todo, logs)
    except StageError as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{table(read_json(out / 'run' / 'metrics.json'))}")
    cvr = read_json(out / "raw" / "demo_logs.json")["options"]["cvr"]
    print("+-: half of a 95 % interval, clustered by user; best: scoring with the true probabilities;")
    print("share: (AUC - 0.5) / (best - 0.5).")
    print(f"CVR of clicks is {cvr:.0%}, not 0.5 % as in real logs, so that a small demo has conversions.")
    print(
        f"\n{time.monotonic() - begin:.0f} s in all. Outputs in {_short(out)}: raw/ samples/ run/ logs/",
        flush=True,
    )
    print(
        f"Report: {(out / 'run' / 'report.html').as_uri()}\nAll runs: {(out / 'index.html').as_uri()}",
        flush=True,
    )


if __name__ == "__main__":
    main()
