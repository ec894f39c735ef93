"""An Airflow of its own for the tests of the DAG, and one tiny day that has run."""

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cluster.processes import PROJECT, Daemon, daemon

DAY = "2026-11-22"
PYTHON = str(PROJECT / ".venv/bin/python")
TINY = """
samples: {max_broken_share: 0.01, rows_per_row_group: 16, buckets: {BUCKETS}}
loader: {shuffle_window: 256}
train: {batch_size: 256, epochs: 1, seed: 1}
"""
LARGE_FIELDS = ("110_14", "127_14", "150_14", "205", "207", "216", "509", "702")

IMPORT = """
import json, os, sys
from datetime import datetime, timedelta, timezone
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
warned = {path: [str(w) for w in found] for path, found in bag.captured_warnings.items()}
dag = bag.dags.get("esmm_daily")
"""
# The run of the day that starts at midnight of sys.argv[1], at the hour at which it is due.
RUN = """
day = datetime.fromisoformat(sys.argv[1]).replace(tzinfo=timezone.utc)
dag.test(logical_date=day + timedelta(days=1, hours=3))
"""
STATES = """
import json, sys
from airflow.models import DagRun, TaskInstance
from airflow.utils.session import create_session
with create_session() as session:
    run = session.query(DagRun).order_by(DagRun.id.desc()).first()
    tasks = session.query(TaskInstance).filter_by(run_id=run.run_id).all()
    print(json.dumps({"run": str(run.state)} | {task.task_id: str(task.state) for task in tasks}))
"""


@dataclass(frozen=True)
class Airflow:
    """An Airflow with an empty SQLite database and this DAG. home: its folder; data: where the days are,
    in a folder whose name holds a space, as is the configuration."""

    home: Path
    environment: dict[str, str]

    @property
    def data(self) -> Path:
        return Path(self.environment["ESMM_DATA"])

    @property
    def config(self) -> Path:
        return Path(self.environment["ESMM_CONFIG"])

    def folder(self, part: str, day: str = DAY) -> Path:
        """A day's raw logs, samples or runs."""
        return self.data / part / f"ds={day}"

    def answer(self, script: str, *arguments: str, **environment: str) -> Any:
        """Run a script under this Airflow; the JSON in the last line that it prints."""
        command = [sys.executable, "-c", IMPORT + script, *arguments]
        done = subprocess.run(
            command,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    def running(
        self, script: str, log: Path, day: str = DAY, **environment: str
    ) -> AbstractContextManager[Daemon]:
        """A day, or what `script` leaves of the DAG, as a process that ends with the context."""
        command = [sys.executable, "-c", IMPORT + script + RUN, day]
        return daemon(command, log, self.environment | environment)

    def run(
        self, log: Path, script: str = "", day: str = DAY, **environment: str
    ) -> tuple[dict[str, str], str]:
        """The same to its end: the states of the run and its tasks, and all that they have logged."""
        with self.running(script, log, day, **environment) as process:
            process.guard.wait(540)
        return self.states(), log.read_text(errors="replace")

    def states(self) -> dict[str, str]:
        """Of the last run (`run`) and of its tasks."""
        return self.answer(STATES)

    def run_day(self, log: Path, script: str = "") -> dict[str, Any]:
        """The metrics of a whole day, having asserted that every task succeeded."""
        states, output = self.run(log, script)
        assert len(states) == 8 and set(states.values()) == {"success"}, (states, output[-8000:])
        return json.loads((self.folder("runs") / "metrics.json").read_text())

    def make_logs(self, *options: str) -> None:
        """Draw the raw logs of the day, replacing those that are there."""
        out = ["--out", str(self.folder("raw")), "--list-scale", "0.1", "--overwrite", *options]
        command = [PYTHON, "-m", "jobs.make_demo_logs", *out]
        subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=240)

    def labels(self) -> Counter[tuple[str, str]]:
        """Impressions of the day's test half by click and conversion, counted in its raw logs."""
        lines = (self.folder("raw") / "sample_skeleton_test.csv").read_text().splitlines()
        fields = (line.split(",", 3) for line in lines)
        return Counter((click, conversion) for _, click, conversion, _ in fields)


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    home = tmp_path_factory.mktemp("airflow")
    data = home / "my data"
    data.mkdir()
    buckets = ", ".join(f'"{name}": 4096' for name in LARGE_FIELDS)
    (data / "tiny.yaml").write_text(TINY.replace("{BUCKETS}", "{" + buckets + "}"))
    environment = os.environ | {
        "PATH": f"{PROJECT}/.venv/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_ESMM_SPARK": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "ESMM_HOME": str(PROJECT),
        "ESMM_DATA": str(data),
        "ESMM_CONFIG": str(data / "tiny.yaml"),
        "ESMM_WORKERS": "2",
    }
    subprocess.run(
        ["airflow", "db", "migrate"], env=environment, check=True, capture_output=True, timeout=240
    )
    return Airflow(home, environment)


@pytest.fixture(scope="session")
def day(airflow: Airflow) -> dict[str, Any]:
    """The metrics of a day that has run, from raw logs drawn for it."""
    airflow.make_logs("--contexts", "120")
    return airflow.run_day(airflow.home / "day.log")
