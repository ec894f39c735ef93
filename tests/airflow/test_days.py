"""Days that really run: through a scheduler's processes, one after another, with what goes wrong on the way.

The tests of this file are one story and run in its order.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.errors import InputError
from tests.airflow.conftest import ENDED, Airflow, started, write_settings
from tests.fixtures.cluster.processes import LOOPBACK, addresses_listened_on, wait_until

pytestmark = pytest.mark.timeout(2400)
ONE, TWO, THREE, FOUR, FIVE = (f"2026-11-0{number}" for number in range(1, 6))
BEFORE_PLAN = {"wait_for_logs", "build_samples", "previous_day", "its_turn", "plan", "profile"}


def ended(states: dict[str, str]) -> dict[str, set[str]]:
    """By state: the tasks."""
    found: dict[str, set[str]] = {}
    for task, state in states.items():
        found.setdefault(state, set()).add(task)
    return found


@pytest.fixture(scope="module")
def week(airflow: Airflow) -> Airflow:
    """Two days have been run by a backfill."""
    for number, day in enumerate((ONE, TWO, THREE, FOUR), 1):
        airflow.draw(number, day)
    airflow.run_days(ONE, TWO)
    return airflow


def test_the_first_day_learns_nothing_and_the_second_makes_a_champion(week: Airflow):
    first, second = week.wait(ONE), week.wait(TWO)
    assert first["run"] == second["run"] == "success"
    assert ended(first)["success"] >= BEFORE_PLAN
    assert {"train", "promote", "report"} <= ended(first)["skipped"]
    assert ended(second)["skipped"] == {"predict_champion", "evaluate_champion"}, second
    champion = week.champion()
    assert (champion["version"], champion["day"], champion["judged_on"]) == (1, ONE, TWO)
    assert champion["run"] == str(week.run_folder(TWO))
    assert (week.run_folder(TWO) / "report.html").is_file()


def test_the_promotion_has_started_the_smoke_test(week: Airflow):
    wait_until(lambda: bool(week.api.runs("esmm_champion")), 60, [week.process])
    wait_until(lambda: week.api.runs("esmm_champion")[0]["state"] in ENDED, 180, [week.process])
    (run,) = week.api.runs("esmm_champion")
    assert run["state"] == "success", week.api.tasks("esmm_champion", run["dag_run_id"])


def test_a_day_judges_the_champion_before_its_candidate_which_goes_on_from_it(week: Airflow):
    states = week.run_days(THREE, THREE)
    assert states["run"] == "success" and "skipped" not in ended(states), states
    plan = json.loads((week.data / f"days/ds={THREE}/plan.json").read_text())
    assert (plan["train"], plan["parent"]) == ([TWO], 1)
    metrics = week.metrics(THREE)
    assert metrics["against"]["run"] == f"{week.data}/days/ds={THREE}/champion/metrics.json"
    labels = [
        line.split(",", 3)[1:3]
        for line in (week.data / f"raw/ds={THREE}/sample_skeleton.csv").read_text().splitlines()
    ]
    sound = [click for click, conversion in labels if (click, conversion) != ("0", "1")]
    assert metrics["ctr"]["rows"] == len(sound)
    assert metrics["ctr"]["positives"] == sound.count("1")
    assert week.champion()["version"] == 2


def snapshot(airflow: Airflow, day: str) -> dict[str, Any]:
    """What a day has left, and which files of its run were written when."""
    run = airflow.run_folder(day)
    return {
        "metrics": airflow.metrics(day),
        "decision": json.loads((run / "decision.json").read_text()),
        "champion": airflow.champion(),
        "registry": airflow.registry("show"),
        "trained": (run / "train.jsonl").stat().st_mtime_ns,
        "plan": (airflow.data / f"days/ds={day}/plan.json").read_text(),
    }


def test_a_day_that_is_cleared_and_triggered_too_at_once_changes_nothing(week: Airflow):
    before = snapshot(week, TWO), snapshot(week, THREE)
    cleared = str(week.run_of(TWO))
    week.clear(TWO)
    runs = [cleared, week.trigger(TWO)]

    def states() -> list[str]:
        found = {one["dag_run_id"]: one["state"] for one in week.api.runs("esmm_daily")}
        return [found[run] for run in runs]

    wait_until(lambda: set(states()) <= set(ENDED), 1200, [week.process])
    assert states() == ["success", "success"]
    assert "is trained already" in week.log(TWO, "train")
    assert (snapshot(week, TWO), snapshot(week, THREE)) == before


def scheduler_of(airflow: Airflow) -> list[psutil.Process]:
    return [
        process
        for process in airflow.process.descendants()
        if any("airflow scheduler" in word for word in process.cmdline())
        or process.cmdline()[1:3] == [str(Path(process.cmdline()[1])), "scheduler"]
    ]


def test_a_day_whose_scheduler_and_trainer_are_killed_is_finished_by_the_next_ones(
    week: Airflow, tmp_path: Path
):
    week.backfill(FOUR, FOUR)
    wait_until(lambda: week.tasks(FOUR).get("train") == "running", 300, [week.process])
    wait_until(lambda: bool(week.process.running("esmm.train")), 60, [week.process])
    for process in [*scheduler_of(week), *week.process.running("esmm.train")]:
        process.send_signal(signal.SIGKILL)
    with started_again(week, tmp_path / "log") as again:
        states = again.wait(FOUR)
        assert states["run"] == "success", states
        assert again.champion()["version"] == 3
        after_rollback(again)


def started_again(airflow: Airflow, log: Path) -> Any:
    """The processes of before end when their scheduler has; the same home, a new port."""
    wait_until_gone(airflow)
    return started(airflow.home, airflow.data / "settings.yaml", log)


def wait_until_gone(airflow: Airflow) -> None:
    assert airflow.process.guard.stdin is not None
    airflow.process.guard.stdin.close()
    airflow.process.guard.wait(60)


def after_rollback(airflow: Airflow) -> None:
    """Rollback, and then the next day goes on from the version that is champion again."""
    airflow.registry("rollback", "--champion", "3", "--reason", "a test")
    assert airflow.champion()["version"] == 2
    airflow.draw(5, FIVE)
    states = airflow.run_days(FIVE, FIVE)
    assert states["run"] == "success", states
    plan = json.loads((airflow.data / f"days/ds={FIVE}/plan.json").read_text())
    assert plan["parent"] == 2 and plan["train"] == [THREE, FOUR]
    assert airflow.champion()["version"] == 4


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
