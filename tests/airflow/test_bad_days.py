"""Days that go wrong, through a scheduler's processes: how each ends, and that the next one can run.

The tests of this file are one story and run in its order.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli.errors import InputError
from storage.locks import wait_for_lock
from tests.airflow.conftest import ENDED, TINY, Airflow, started, write_settings
from tests.fixtures.cluster.processes import LOOPBACK, addresses_listened_on, wait_until

pytestmark = pytest.mark.timeout(2400)
ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN = (f"2026-11-0{number}" for number in range(1, 8))


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """One that waits no time at all for logs, and tries nothing twice."""
    home = tmp_path_factory.mktemp("impatient")
    hours = {"wait": 0, "poll": 0.0003, "task": 0.2, "approval": 0.008}
    settings = write_settings(home / "data", hours=hours, retries=0)
    with started(home / "home", settings, home / "log") as found:
        yield found


def test_logs_that_never_come_fail_the_day_and_the_next_one_runs(impatient: Airflow):
    impatient.draw(2, TWO)
    states = impatient.run_days(ONE, TWO)
    assert states["run"] == "success" and states["plan"] == "success"
    failed = impatient.wait(ONE)
    assert failed["run"] == "failed" and failed["wait_for_logs"] == "failed"
    assert failed["settled"] == "success" and failed["plan"] == "upstream_failed"
    log = impatient.log(ONE, "wait_for_logs")
    assert f"ds={ONE}: not whole yet, _SUCCESS missing after 0:00:00" in log
    assert "STAGE FAILED: wait_for_logs of esmm_daily" in log and "docs/operations.md" in log


def test_half_a_days_logs_fail_at_once(impatient: Airflow):
    raw = impatient.data / f"raw/ds={THREE}"
    raw.mkdir(parents=True)
    for name in ("sample_skeleton.csv", "_SUCCESS"):
        (raw / name).touch()
    states = impatient.run_days(THREE, THREE)
    assert (states["run"], states["wait_for_logs"]) == ("failed", "failed")
    assert "found nothing that begins with common_features" in impatient.log(THREE, "wait_for_logs")
    assert not (impatient.data / f"samples/ds={THREE}").exists()


def test_broken_logs_and_broken_gates_stop_the_day_and_are_never_learnt_from(impatient: Airflow):
    raw = impatient.data / f"raw/ds={THREE}"
    shutil.rmtree(raw)
    impatient.draw(3, THREE)
    skeleton = raw / "sample_skeleton.csv"
    whole = skeleton.read_text()
    skeleton.write_text(whole + "a line of another schema\n" * whole.count("\n"))
    impatient.clear(THREE)
    states = impatient.wait(THREE)
    assert (states["run"], states["build_samples"]) == ("failed", "failed")
    impatient.draw(3, THREE, "--ctr", "0.3")
    impatient.clear(THREE)
    states = impatient.wait(THREE)
    assert (states["build_samples"], states["profile"], states["train"]) == (
        *("success", "failed"),
        "upstream_failed",
    )
    assert "ctr: found 0." in impatient.log(THREE, "profile")
    impatient.draw(4, FOUR)
    assert impatient.run_days(FOUR, FOUR)["run"] == "success"
    plan = json.loads((impatient.data / f"days/ds={FOUR}/plan.json").read_text())
    assert (plan["train"], plan["missing"]) == ([TWO], [THREE])


def test_a_backfill_in_the_wrong_order_is_refused(impatient: Airflow):
    wait_until(lambda: not impatient.api.is_backfilling("esmm_daily"), 120, [impatient.process])
    with pytest.raises(InputError, match="depends_on_past"):
        impatient.api.backfill("esmm_daily", ONE, THREE, run_backwards=True)


def test_a_champion_that_was_deleted_stops_the_day_with_the_ways_out(impatient: Airflow):
    champion = Path(impatient.champion()["run"])
    champion.rename(champion.with_name("gone"))
    impatient.draw(5, FIVE)
    states = impatient.run_days(FIVE, FIVE)
    assert (states["run"], states["plan"], states["settled"]) == ("failed", "failed", "success")
    assert "Make another one champion with esmm.registry rollback" in impatient.log(FIVE, "plan")
    champion.with_name("gone").rename(champion)
    assert impatient.champion()["run"] == str(champion)
    impatient.clear(FIVE)
    assert impatient.wait(FIVE)["run"] == "success"
    assert impatient.champion()["run"] == str(impatient.run_folder(FIVE))


def failed_in(airflow: Airflow, day: str, task: str) -> str:
    """A day that has ended with this task failed and nothing promoted; the task's log."""
    states = airflow.wait(day)
    assert (states["run"], states[task], states["promote"]) == ("failed", "failed", "upstream_failed")
    return airflow.log(day, task)


def test_a_candidate_with_nan_is_no_candidate(impatient: Airflow):
    impatient.draw(6, SIX)
    champion, config = impatient.champion(), impatient.data / "tiny.yaml"
    config.write_text(json.dumps(TINY | {"optimizer": {"dense": {"learning_rate": 1e30}}}))
    impatient.run_days(SIX, SIX)
    assert "training diverged" in failed_in(impatient, SIX, "train")
    config.write_text(json.dumps(TINY))
    assert impatient.champion() == champion


def test_a_full_disk_fails_the_day(impatient: Airflow):
    disk = impatient.data / f"runs/ds={SIX}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        impatient.clear(SIX)
        assert "No space left on device" in failed_in(impatient, SIX, "train")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_registry_that_is_locked_fails_the_day_which_then_goes_on_where_it_was(impatient: Airflow):
    with wait_for_lock(impatient.data / "registry/.lock", 0):
        impatient.clear(SIX)
        assert f"held by process {os.getpid()}" in failed_in(impatient, SIX, "register")
    versions = impatient.registry("show").splitlines()
    impatient.clear(SIX)
    states = impatient.wait(SIX)
    assert states["run"] == "success", states
    assert "is trained already" in impatient.log(SIX, "train")
    assert len(impatient.registry("show").splitlines()) == len(versions) + 1
    assert impatient.champion()["judged_on"] == SIX


def test_a_day_without_conversions_decides_nothing(impatient: Airflow):
    impatient.draw(7, SEVEN)
    skeleton = impatient.data / f"raw/ds={SEVEN}/sample_skeleton.csv"
    # Broken lines, which convert without a click, stay broken.
    skeleton.write_text(re.sub(r"(?m)^(\d+),1,1,", r"\1,1,0,", skeleton.read_text()))
    champion = impatient.champion()
    states = impatient.run_days(SEVEN, SEVEN)
    assert (states["run"], states["promote"], states["report"]) == ("success", "skipped", "success"), states
    assert impatient.metrics(SEVEN)["cvr"]["positives"] == 0
    assert "0 conversions on 1 day" in impatient.log(SEVEN, "promote")
    assert impatient.champion() == champion


def asked(airflow: Airflow, version: int) -> str:
    """A forced promotion that waits for an answer."""
    conf = {"logical_date": None, "conf": {"version": version, "reason": 'it\'s a "test"; $HOME'}}
    return str(airflow.api.ask("/dags/esmm_promote/dagRuns", "POST", conf)["dag_run_id"])


def test_a_forced_promotion_needs_an_answer_and_no_answer_means_no(impatient: Airflow):
    champion = impatient.champion()
    run = champion["run"]
    # As another version: the same model, said to have learnt a day more.
    words = ("--run", run, "--day", THREE, "--metrics", f"{run}/metrics.json", "--json")
    before, other = champion["version"], json.loads(impatient.registry("register", *words))["version"]
    assert other != before

    def ended_as(run: str) -> str:
        found = {one["dag_run_id"]: one["state"] for one in impatient.api.runs("esmm_promote")}
        return str(found[run])

    run = asked(impatient, other)
    wait_until(lambda: ended_as(run) in ENDED, 120, [impatient.process])
    assert impatient.api.tasks("esmm_promote", run) == {"approve": "success", "promote": "skipped"}
    assert impatient.champion()["version"] == before
    run = asked(impatient, other)
    path = f"/dags/esmm_promote/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    wait_until(
        lambda: (
            impatient.api.tasks("esmm_promote", run).get("approve") == "awaiting_input"
            or impatient.api.tasks("esmm_promote", run).get("approve") == "deferred"
        ),
        60,
        [impatient.process],
    )
    time.sleep(5)  # Airflow fails a task that is answered while its process still ends
    impatient.api.ask(path, "PATCH", {"chosen_options": ["Approve"], "params_input": {}})
    wait_until(lambda: ended_as(run) in ENDED, 120, [impatient.process])
    assert impatient.api.tasks("esmm_promote", run) == {"approve": "success", "promote": "success"}
    assert impatient.champion()["version"] == other


def test_it_listens_on_the_loopback_interface_only(impatient: Airflow):
    assert addresses_listened_on([impatient.process]) == {LOOPBACK}


def test_sigterm_leaves_no_process_behind(impatient: Airflow):
    (local,) = impatient.process.running("scripts.local_airflow")
    family = [local, *local.children(recursive=True)]
    assert len(family) > 4
    os.kill(local.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert impatient.process.guard.wait(60) == 0
