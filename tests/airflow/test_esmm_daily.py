"""The DAG: imports cleanly, renders the commands expected, and one tiny day really runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.processes import PROJECT, daemon, wait_until

DAY = "2026-11-22"
PYTHON = str(PROJECT / ".venv/bin/python")
TINY = """
samples: {max_broken_share: 0.01, rows_per_row_group: 16, buckets: {BUCKETS}}
loader: {shuffle_window: 256}
train: {batch_size: 256, epochs: 1, seed: 1}
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """The environment of an Airflow with an empty SQLite database, this DAG and a day's folder."""
    home = tmp_path_factory.mktemp("airflow")
    buckets = ", ".join(
        f'"{name}": 4096' for name in ("110_14", "127_14", "150_14", "205", "207", "216", "509", "702")
    )
    (home / "tiny.yaml").write_text(TINY.replace("{BUCKETS}", "{" + buckets + "}"))
    environment = os.environ | {
        "PATH": f"{PROJECT}/.venv/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_ESMM_SPARK": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "ESMM_HOME": str(PROJECT),
        "ESMM_DATA": str(home / "data"),
        "ESMM_CONFIG": str(home / "tiny.yaml"),
        "ESMM_WORKERS": "2",
    }
    subprocess.run(
        ["airflow", "db", "migrate"], env=environment, check=True, capture_output=True, timeout=240
    )
    return home, environment


def in_airflow(environment: dict[str, str], script: str, *arguments: str) -> str:
    """Run a script under Airflow's environment; the last line it prints."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


IMPORT = """
import json, os
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
warned = {path: [str(w) for w in found] for path, found in bag.captured_warnings.items()}
dag = bag.dags.get("esmm_daily")
"""


def test_imports_without_errors_or_deprecations(airflow):
    _, environment = airflow
    script = IMPORT + "print(json.dumps([bag.import_errors, warned, sorted(bag.dags)]))"
    assert json.loads(in_airflow(environment, script)) == [{}, {}, ["esmm_daily"]]


RENDER = (
    IMPORT
    + """
import sys
from datetime import datetime, timezone
from types import SimpleNamespace
instance = SimpleNamespace(try_number=int(sys.argv[1]))
day = datetime(2026, 11, 22, tzinfo=timezone.utc)
context = {"data_interval_start": day, "ti": instance, "task_instance": instance}
shown = {}
for task in dag.tasks:
    task.render_template_fields(context | {"task": task})
    command = getattr(task, "bash_command", None) or " ".join([task.application, *task.application_args])
    shown[task.task_id] = [command, sorted(task.upstream_task_ids)]
print(json.dumps(shown))
"""
)


@pytest.mark.parametrize(("attempt", "manner"), [("1", "--overwrite"), ("2", "--overwrite --resume")])
def test_the_commands_of_a_day(airflow, attempt, manner):
    home, environment = airflow
    raw, samples, run = (f"{home}/data/{part}/ds={DAY}" for part in ("raw", "samples", "runs"))
    config = f"{home}/tiny.yaml"
    workers = f"{PROJECT}/.venv/bin/horovodrun -np 2 -H localhost:2 {PYTHON} -m"
    expected = {
        f"build_samples_{split}": [
            " ".join(
                [
                    f"{PROJECT}/jobs/build_samples.py --skeleton {raw}/sample_skeleton_{split}*",
                    f"--common {raw}/common_features_{split}* --out {samples}/split={split}",
                    f"--config {config} --overwrite",
                ]
            ),
            [],
        ]
        for split in ("train", "test")
    }
    train = f"esmm.train --config {config} --train {samples}/split=train --valid {samples}/split=test"
    predict = f"esmm.predict --run {run} --samples {samples}/split=test --out {run}/predictions"
    upstream = ["build_samples_test", "build_samples_train"]
    expected["train"] = [f"{workers} {train} --run {run} {manner}", upstream]
    expected["predict"] = [f"{workers} {predict} --overwrite", ["train"]]
    expected["evaluate"] = [
        f"{PROJECT}/jobs/evaluate.py --predictions {run}/predictions --out {run}/metrics.json",
        ["predict"],
    ]
    assert json.loads(in_airflow(environment, RENDER, attempt)) == expected


@pytest.fixture(scope="module")
def day(airflow) -> dict:
    """The metrics of a day that has run, from raw logs drawn for it."""
    home, environment = airflow
    options = ["--out", str(home / f"data/raw/ds={DAY}"), "--contexts", "120", "--list-scale", "0.1"]
    command = [PYTHON, "-m", "jobs.make_demo_logs", *options]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=240)
    return run_day(environment, home)


@pytest.mark.timeout(900)  # the real stages, twice
def test_a_day_runs_from_raw_logs_to_metrics_and_runs_again(airflow, day):
    home, environment = airflow
    assert day["ctr"]["rows"] > 1000
    assert 0 < day["ctcvr"]["positives"] <= day["cvr"]["rows"] < day["ctr"]["rows"]
    assert 0 < day["ctr"]["auc"] < 1
    again = run_day(environment, home)
    assert {task: again[task]["rows"] for task in ("ctr", "cvr", "ctcvr")} == {
        task: day[task]["rows"] for task in ("ctr", "cvr", "ctcvr")
    }


TRY_TWICE = (
    IMPORT
    + """
from datetime import datetime, timedelta, timezone
training = dag.partial_subset("train", include_upstream=False)
training.get_task("train").retry_delay = timedelta(seconds=1)
training.test(logical_date=datetime(2026, 11, 23, 3, tzinfo=timezone.utc))
"""
)


@pytest.mark.timeout(900)
def test_training_that_was_killed_goes_on_when_it_is_tried_again(airflow, day):
    home, environment = airflow
    run = home / f"data/runs/ds={DAY}"
    replacing = run.with_name(f".{run.name}.new")
    settings = (home / "tiny.yaml").read_text().replace("epochs: 1", "epochs: 12, checkpoint_steps: 10")
    (home / "long.yaml").write_text(settings)
    command = [sys.executable, "-c", TRY_TWICE]
    long = environment | {"ESMM_CONFIG": str(home / "long.yaml")}
    with daemon(command, home / "tries", long) as tries:
        wait_until(lambda: any(replacing.glob("checkpoints/step-*")), 240, [tries])
        tries.running("esmm.train")[0].kill()
        code = tries.guard.wait(400)
    output = (home / "tries").read_text()
    assert code == 0, output
    commands = (run / "command.txt").read_text().splitlines()
    assert [re.findall(r"--\w+", command)[-2:] for command in commands] == [
        ["--run", "--overwrite"],
        ["--overwrite", "--resume"],
    ]
    assert "resuming from" in output


def run_day(environment: dict[str, str], home: Path) -> dict:
    """`airflow dags test` of the day; its metrics, having asserted that every task succeeded."""
    command = ["airflow", "dags", "test", "esmm_daily", "2026-11-23T03:00:00+00:00"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540, check=False)
    output = done.stdout + done.stderr
    states = json.loads(in_airflow(environment, STATES))
    assert states == {"run": "success", "tasks": ["success"] * 5}, output[-8000:]
    return json.loads((home / f"data/runs/ds={DAY}/metrics.json").read_text())


STATES = """
import json
from airflow.models import DagRun, TaskInstance
from airflow.utils.session import create_session
with create_session() as session:
    run = session.query(DagRun).order_by(DagRun.id.desc()).first()
    tasks = session.query(TaskInstance).filter_by(run_id=run.run_id).all()
    print(json.dumps({"run": str(run.state), "tasks": [str(task.state) for task in tasks]}))
"""
