"""An Airflow of the tests' own: its DAGs as they are read, and its real processes where days have to run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.airflow_api import Api
from tests.fixtures.cluster.processes import PROJECT, Daemon, daemon, free_ports, wait_until

PYTHON = str(PROJECT / ".venv/bin/python")
LARGE_FIELDS = ("110_14", "127_14", "150_14", "205", "207", "216", "509", "702")
# A few hundred contexts a day: gates as wide as what so few impressions can show.
TINY = {
    "samples": {
        "max_broken_share": 0.01,
        "rows_per_row_group": 16,
        "buckets": dict.fromkeys(LARGE_FIELDS, 4096),
    },
    "profile": {"gates": {"ctr": [0.02, 0.08], "max_duplicate_sample_ids": 0}},
    "evaluate": {"slices": {"301": []}},
    "loader": {"shuffle_window": 256},
    "train": {"batch_size": 256, "epochs": 1, "seed": 1},
    "promotion": {
        "min_conversions": 5,
        "margin": {"cvr": 0.9, "ctcvr": 0.9},
        "calibration": {"ctr": [0.2, 5.0], "ctcvr": [0.05, 20.0]},
        "slices": {"ctr": None, "ctcvr": None},
    },
}
ENDED = ("success", "failed")
DAGS = ("esmm_champion", "esmm_daily", "esmm_promote")

IMPORT = """
import json, os, sys
from datetime import datetime, timedelta, timezone
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
sys.path.append(folder)
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(folder)
warned = {path: [str(w) for w in found] for path, found in bag.captured_warnings.items()}
dag = bag.dags.get("esmm_daily")
"""


@dataclass(frozen=True)
class Reading:
    """An Airflow of which only the DAGs are read. home: its folder; settings: of daily retraining."""

    home: Path
    settings: Path
    environment: dict[str, str]

    def answer(self, script: str, *arguments: str, seconds: float = 240, **environment: str) -> Any:
        """Run a script that has the DAGs; the JSON in the last line that it prints."""
        done = subprocess.run(
            [sys.executable, "-c", IMPORT + script, *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    def with_settings(self, **changed: Any) -> dict[str, str]:
        """Variables for other settings than these."""
        path = self.home / f"settings-{abs(hash(json.dumps(changed)))}.yaml"
        path.write_text(json.dumps(json.loads(self.settings.read_text()) | changed))
        return {"ESMM_SETTINGS": str(path)}


def write_settings(data: Path, **changed: Any) -> Path:
    """Settings, and the configuration that they name, in YAML's form of JSON."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "tiny.yaml").write_text(json.dumps(TINY))
    settings = {
        "data": str(data),
        "config": str(data / "tiny.yaml"),
        "keep_fields": ["301"],
        "truth": "truth.csv",
        "end": "2026-11-20",
        "retries": 1,
        "retry_minutes": 0.02,
        "hours": {"wait": 1, "poll": 0.0003, "task": 0.2},
        **changed,
    }
    (data / "settings.yaml").write_text(json.dumps(settings))
    return data / "settings.yaml"


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    home = tmp_path_factory.mktemp("reading")
    settings = write_settings(home / "my data")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_ESMM_SPARK": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "ESMM_HOME": str(PROJECT),
        "ESMM_SETTINGS": str(settings),
    }
    return Reading(home, settings, environment)


@dataclass(frozen=True)
class Airflow:
    """A running one. data: where the days are, in a folder whose name holds a space."""

    home: Path
    data: Path
    api: Api
    process: Daemon

    def draw(self, number: int, day: str, *options: str) -> None:
        """The raw logs of a day of the drifting world, replacing those that are there."""
        out = ["--out", str(self.data / f"raw/ds={day}"), "--overwrite"]
        words = ["--day", str(number), "--contexts", "300", "--list-scale", "0.1", *out, *options]
        command = [PYTHON, "-m", "jobs.make_demo_logs", *words]
        subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=240)

    def run_of(self, day: str) -> str | None:
        """The newest run of a day."""
        found = [
            one["dag_run_id"]
            for one in self.api.runs("esmm_daily")
            if (one["data_interval_start"] or "")[:10] == day or (one["conf"] or {}).get("day") == day
        ]
        return found[-1] if found else None

    def state(self, day: str) -> str:
        found = {one["dag_run_id"]: one["state"] for one in self.api.runs("esmm_daily")}
        return str(found.get(self.run_of(day) or ""))

    def tasks(self, day: str) -> dict[str, str]:
        run = self.run_of(day)
        return self.api.tasks("esmm_daily", run) if run else {}

    def wait(self, day: str, seconds: float = 900) -> dict[str, str]:
        """Until a day's run has ended: the states of its tasks, with that of the run as `run`."""
        # Two cores: who asks ten times a second takes a third of one from the stages.
        wait_until(lambda: self.state(day) in ENDED, seconds, [self.process], every=1)
        return {"run": self.state(day)} | self.tasks(day)

    def run_days(self, first: str, last: str) -> dict[str, str]:
        """Backfill days; the states of the last."""
        self.backfill(first, last)
        wait_until(lambda: self.run_of(last) is not None, 60, [self.process])
        return self.wait(last)

    def backfill(self, first: str, last: str) -> None:
        wait_until(lambda: not self.api.is_backfilling("esmm_daily"), 120, [self.process])
        self.api.backfill("esmm_daily", first, last)

    def trigger(self, day: str, **conf: Any) -> str:
        """A run by hand of a day; its id."""
        content = {"logical_date": None, "conf": {"day": day, **conf}}
        return str(self.api.ask("/dags/esmm_daily/dagRuns", "POST", content)["dag_run_id"])

    def clear(self, day: str, task: str | None = None) -> None:
        """Let all tasks of a day run again, or one alone."""
        content: dict[str, Any] = {"dry_run": False, "only_failed": False}
        if task:
            content |= {"dag_run_id": self.run_of(day), "task_ids": [task]}
            self.api.ask("/dags/esmm_daily/clearTaskInstances", "POST", content)
        else:
            self.api.ask(f"/dags/esmm_daily/dagRuns/{self.run_of(day)}/clear", "POST", content)
        wait_until(lambda: self.state(day) not in ENDED, 60, [self.process])

    def log(self, day: str, task: str) -> str:
        """Of the last try."""
        instance = f"/dags/esmm_daily/dagRuns/{self.run_of(day)}/taskInstances/{task}"
        attempt = self.api.ask(instance)["try_number"]
        found = self.api.ask(f"{instance}/logs/{attempt}")
        return json.dumps(found["content"])

    def registry(self, *words: str) -> str:
        """One of the registry's commands; what it prints."""
        command = [PYTHON, "-m", "esmm.registry", words[0], "--registry", str(self.data / "registry")]
        done = subprocess.run(
            [*command, *words[1:]], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode in (0, 3), done.stdout + done.stderr
        return done.stdout

    def champion(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.registry("champion", "--json"))
        return found

    def run_folder(self, day: str) -> Path:
        """Of the candidate of a day."""
        (found,) = (self.data / f"runs/ds={day}").iterdir()
        return found

    def metrics(self, day: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_folder(day) / "metrics.json").read_text())
        return found


@contextmanager
def started(home: Path, settings: Path, log: Path) -> Iterator[Airflow]:
    """The processes of a local Airflow, as `make airflow` starts them; none is left afterwards."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "scripts.local_airflow", "--home", str(home)]
    command += ["--settings", str(settings), "--port", str(port)]
    changed = {
        # Tasks of a scheduler that was killed are taken up soon.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW_CONN_ESMM_SPARK": json.dumps({"conn_type": "spark", "host": "local[2]"}),
    }
    with daemon(command, log, os.environ | changed) as process:
        wait_until(lambda: "Ctrl-C ends it" in log.read_text(), 240, [process])
        password = json.loads((home / "passwords.json").read_text())["admin"]
        api = Api.log_in(f"http://localhost:{port}", "admin", password)
        wait_until(lambda: api.dag_ids() >= set(DAGS), 120, [process])
        for name in DAGS:
            api.unpause(name)
        yield Airflow(home, settings.parent, api, process)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow")
    settings = write_settings(home / "my data")
    with started(home / "home", settings, home / "local_airflow.log") as found:
        yield found
