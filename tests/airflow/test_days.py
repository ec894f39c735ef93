"""Days that really run: through a scheduler's processes, one after another, also when they are killed.

The tests of this file are one story and run in its order.
"""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.airflow.conftest import ENDED, Airflow, started
from tests.fixtures.cluster.processes import wait_until

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
