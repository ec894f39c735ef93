"""Days that really run: the real stages, their failures, and what is seen of these."""

import re
import shutil
import signal
from typing import Any

import pytest

from tests.airflow.conftest import Airflow
from tests.fixtures.cluster.processes import wait_until

pytestmark = pytest.mark.timeout(900)


def assert_of_the_logs(metrics: dict[str, Any], airflow: Airflow) -> None:
    """The metrics judge the impressions of the raw logs that are there now, with their labels."""
    labels = airflow.labels()
    conversions = labels["1", "1"]
    clicks = labels["1", "0"] + conversions
    impressions = labels["0", "0"] + clicks  # a conversion without a click is a broken line
    found = {task: (metrics[task]["rows"], metrics[task]["positives"]) for task in ("ctr", "cvr", "ctcvr")}
    expected = {"ctr": (impressions, clicks), "cvr": (clicks, conversions)}
    assert found == expected | {"ctcvr": (impressions, conversions)}


def test_a_day_runs_from_raw_logs_to_metrics(airflow: Airflow, day: dict[str, Any]):
    assert_of_the_logs(day, airflow)
    assert day["ctr"]["rows"] > 1000
    assert 0 < day["ctr"]["auc"]["value"] < 1
    assert (airflow.folder("samples") / "_profile.json").is_file()


def test_a_day_that_runs_again_gives_the_same_metrics(airflow: Airflow, day: dict[str, Any], tmp_path):
    assert airflow.run_day(tmp_path / "log") == day


TRAIN = """
dag = dag.partial_subset(["train"], include_upstream=False)
task = dag.get_task("train")
"""


def test_training_that_was_killed_goes_on_when_it_is_tried_again(airflow: Airflow, day, tmp_path):
    run = airflow.folder("runs")
    replacing = run.with_name(f".{run.name}.new")
    long = tmp_path / "long.yaml"
    long.write_text(airflow.config.read_text().replace("epochs: 1", "epochs: 12, checkpoint_steps: 10"))
    soon = TRAIN + "task.retry_delay = timedelta(seconds=1)\n"
    with airflow.running(soon, tmp_path / "tries", ESMM_CONFIG=str(long)) as tries:
        wait_until(lambda: any(replacing.glob("checkpoints/step-*")), 240, [tries])
        tries.running("esmm.train")[0].kill()
        code = tries.guard.wait(400)
    output = (tmp_path / "tries").read_text()
    assert code == 0, output
    commands = (run / "command.txt").read_text().splitlines()
    assert [re.findall(r"--\w+", command)[-2:] for command in commands] == [
        ["--run", "--overwrite"],
        ["--overwrite", "--resume"],
    ]
    assert "resuming from" in output


def test_workers_that_hang_are_killed_when_their_time_is_over(airflow: Airflow, day, tmp_path):
    log = tmp_path / "log"
    # Afterwards the process stays, so that what it left behind is not killed with it.
    once = TRAIN + "task.retries = 0\nimport atexit, time\natexit.register(time.sleep, 300)\n"
    with airflow.running(once, log, ESMM_TASK_HOURS="0.015") as hanging:
        wait_until(lambda: len(hanging.running("esmm.train")) == 2, 50, [hanging])
        for worker in hanging.running("esmm.train"):
            worker.send_signal(signal.SIGSTOP)
        wait_until(lambda: "AirflowTaskTimeout" in log.read_text(), 120, [hanging])
        wait_until(lambda: not hanging.descendants("esmm.train"), 30, [hanging])
        wait_until(lambda: airflow.states() == {"run": "failed", "train": "failed"}, 30, [hanging])


def test_a_day_without_logs_fails_and_says_which_file_it_waited_for(airflow: Airflow, tmp_path):
    states, output = airflow.run(tmp_path / "log", day="2026-11-24", ESMM_WAIT_HOURS="0")
    assert states.pop("run") == "failed"
    assert states.pop("wait_for_logs") == "failed"
    assert set(states.values()) == {"upstream_failed"}
    mark = airflow.folder("raw", "2026-11-24") / "_SUCCESS"
    assert f"waiting for {mark}, written after the last of the day's logs" in output
    assert "Sensor has timed out" in output
    assert not airflow.folder("samples", "2026-11-24").exists()


WAIT = """
dag = dag.partial_subset(["wait_for_logs"], include_upstream=False)
dag.get_task("wait_for_logs").poke_interval = 1
"""


def test_a_day_waits_for_the_mark_not_for_the_first_files(airflow: Airflow, tmp_path):
    raw = airflow.folder("raw", "2026-11-25")
    raw.mkdir(parents=True)
    (raw / "sample_skeleton_train.csv").touch()
    log = tmp_path / "log"
    with airflow.running(WAIT, log, day="2026-11-25") as waiting:
        wait_until(lambda: log.read_text().count(f"waiting for {raw}/_SUCCESS") > 1, 120, [waiting])
        assert airflow.states()["run"] == "running"
        (raw / "_SUCCESS").touch()
        waiting.guard.wait(120)
    assert airflow.states() == {"run": "success", "wait_for_logs": "success"}


PROFILE = """
dag = dag.partial_subset(["profile"], include_upstream=False, include_downstream=True)
"""


def test_a_broken_gate_stops_the_day_before_training(airflow: Airflow, day, tmp_path):
    strict = tmp_path / "strict.yaml"
    strict.write_text(airflow.config.read_text() + "profile: {gates: {ctr: [0.9, 1.0]}}\n")
    run = airflow.folder("runs")
    trained = (run / "command.txt").stat().st_mtime_ns
    states, output = airflow.run(tmp_path / "log", PROFILE, ESMM_CONFIG=str(strict))
    assert states == {"run": "failed", "profile": "failed"} | dict.fromkeys(
        ("train", "predict", "evaluate"), "upstream_failed"
    )
    assert re.search(r"ctr: found 0\.\d+, allowed 0\.9 to 1", output), output[-4000:]
    assert (run / "command.txt").stat().st_mtime_ns == trained


# To Airflow a task that was cleared is tried again.
CLEARED = """
task = dag.get_task("train")
task.bash_command = task.bash_command.replace("try_number > 1", "try_number > 0")
"""


def test_a_day_cleared_after_its_logs_were_mended_is_of_the_mended_logs(airflow: Airflow, day, tmp_path):
    run = airflow.folder("runs")
    unfinished = run.with_name(f".{run.name}.new")
    shutil.copytree(run, unfinished)
    (unfinished / "_SUCCESS").unlink()
    before = airflow.labels()
    airflow.make_logs("--contexts", "150", "--seed", "2")
    assert airflow.labels() != before
    mended = airflow.run_day(tmp_path / "log", CLEARED)
    assert_of_the_logs(mended, airflow)
    assert all(mended[task]["auc"] != day[task]["auc"] for task in ("ctr", "cvr", "ctcvr"))
    assert "starting anew, as --overwrite allows" in (tmp_path / "log").read_text()
