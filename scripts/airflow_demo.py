"""Ten days of daily retraining on demo logs whose world drifts, run by a real Airflow, and what they show.

    make airflow-demo
    .venv-airflow/bin/python -m scripts.airflow_demo --days 4 --contexts 1000

Starts Airflow, backfills the days one after another, stops it and prints two tables: what happened each
day, and what a model costs that is never trained again. A second call goes on with the days that are there.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from scripts.airflow_api import Api
from scripts.demo_days import TASKS, Day, days_table, read_day, staleness_table
from scripts.local_airflow import PROJECT, PYTHON, Airflow, begin, draw_days, free_port, prepare, running

FIRST = date(2026, 11, 1)
ENDED = ("success", "failed")
POLL_SECONDS = 5
SETTINGS = """\
# Written by scripts.airflow_demo.
data: {data}
config: configs/demo.yaml
keep_fields: ["301", "150_14"]
truth: truth.csv
end: {end}
retries: 1
retry_minutes: 0.1
keep: {{samples: null, days: null, runs: null}}
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("scripts.airflow_demo", __doc__)
    parser.add_argument("--days", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--contexts", type=int, default=4000, help="of each day (%(default)s)")
    parser.add_argument("--out", type=Path, default=PROJECT / "build/airflow-demo", help="(%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="of Airflow's page; default: a free one")
    return parser.parse_args(argv)


def run_states(api: Api) -> dict[str, str]:
    """By day: the state of its run."""
    return {one["data_interval_start"][:10]: one["state"] for one in api.runs("esmm_daily")}


def run_days(airflow: Airflow, days: list[date]) -> None:
    """All days to their end, with a line for each that has ended."""
    api = begin(airflow, days)
    told: set[str] = set()
    clock = time.monotonic()
    while len(told) < len(days):
        time.sleep(POLL_SECONDS)
        states = run_states(api)
        for day in sorted(day for day, state in states.items() if state in ENDED and day not in told):
            told.add(day)
            print(
                f"[{len(told)}/{len(days)}] {day}: {states[day]}, {time.monotonic() - clock:.0f} s",
                flush=True,
            )
            clock = time.monotonic()
    while any(one["state"] not in ENDED for one in api.runs("esmm_champion")):
        time.sleep(POLL_SECONDS)  # the last champion is being tried
    failed = [day for day, state in run_states(api).items() if state == "failed"]
    if failed:
        raise InputError(f"{', '.join(failed)}: failed. The tasks' logs: {airflow.home / 'logs'}.")


def judge_frozen(data: Path, days: list[date]) -> None:
    """The first model that was promoted, on each day since, compared with the day's champion."""
    plans = {day: json.loads((data / f"days/ds={day}/plan.json").read_text()) for day in days}
    judged = [day for day, plan in plans.items() if plan["champion_run"]]
    for day in judged:
        frozen = plans[judged[0]]["champion_run"]
        folder = data / f"days/ds={day}/frozen"
        if (folder / "metrics.json").exists():
            continue
        print(f"the frozen model on {day} ...", flush=True)
        predictions = str(folder / "predictions")
        words = ["--run", frozen, "--samples", f"{data}/samples/ds={day}", "--out", predictions]
        _run("esmm.predict", *words, "--keep=301", "--keep=150_14", "--overwrite")
        against = f"{data}/days/ds={day}/champion/metrics.json"
        words = ["--predictions", predictions, "--out", f"{folder}/metrics.json", "--against", against]
        _run(
            "jobs.evaluate",
            *words,
            "--config",
            "configs/demo.yaml",
            "--truth",
            f"{data}/raw/ds={day}/truth.csv",
        )


def _run(module: str, *words: str) -> None:
    done = subprocess.run(
        [PYTHON, "-m", module, *words], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"{module} failed:\n{(done.stderr or done.stdout)[-2000:]}")


def tables(days: list[Day]) -> str:
    return "\n\n".join([days_table(days), *(staleness_table(days, task) for task in TASKS)])


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    days = [FIRST + timedelta(days=number) for number in range(args.days)]
    out = args.out.absolute()
    data = out / "data"
    draw_days(data / "raw", days, args.contexts)
    settings = out / "settings.yaml"
    settings.write_text(SETTINGS.format(data=data, end=days[-1]))
    print("starting Airflow ...", flush=True)
    airflow = prepare(out / "airflow", settings, args.port or free_port())
    with running(airflow):
        print(f"Airflow: {airflow.page}   user: admin   password: {airflow.password}", flush=True)
        run_days(airflow, days)
    judge_frozen(data, days)
    text = tables([read_day(data, str(day)) for day in days])
    (out / "tables.txt").write_text(text + "\n")
    print(f"\n{text}\n\nwritten to {out / 'tables.txt'}; reports: {data}/runs/index.html")


if __name__ == "__main__":
    exit_with_message(main)
