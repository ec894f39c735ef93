"""Days that really run: through a scheduler's processes, one after another, also when they are killed.

The tests of this file are one story and run in its order.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.airflow.conftest import ENDED, Airflow, started
from tests.fixtures.cluster.processes import PROJECT, wait_until

pytestmark = pytest.mark.timeout(2400)
ONE, TWO, THREE, FOUR, FIVE, SIX = (f"2026-11-0{number}" for number in range(1, 7))
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


@pytest.fixture(scope="module")
def again(week: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """The same home, started once more: scheduler and trainers were killed in the middle of FOUR."""
    week.backfill(FOUR, FOUR)
    wait_until(lambda: week.tasks(FOUR).get("train") == "running", 300, [week.process])
    wait_until(lambda: bool(week.process.running("esmm.train")), 60, [week.process])
    for process in [*scheduler_of(week), *week.process.running("esmm.train")]:
        process.send_signal(signal.SIGKILL)
    assert week.process.guard.stdin is not None
    week.process.guard.stdin.close()  # the others end when their scheduler has
    week.process.guard.wait(60)
    log = tmp_path_factory.mktemp("again") / "log"
    with started(week.home, week.data / "settings.yaml", log) as found:
        yield found


def test_a_day_whose_scheduler_and_trainers_are_killed_is_finished_by_the_next_ones(again: Airflow):
    states = again.wait(FOUR)
    assert states["run"] == "success", states
    assert again.champion()["version"] == 3


def test_after_a_rollback_the_next_day_goes_on_from_the_version_that_is_champion_again(again: Airflow):
    again.registry("rollback", "--champion", "3", "--reason", "a test")
    assert again.champion()["version"] == 2
    again.draw(5, FIVE)
    states = again.run_days(FIVE, FIVE)
    assert states["run"] == "success", states
    plan = json.loads((again.data / f"days/ds={FIVE}/plan.json").read_text())
    assert plan["parent"] == 2 and plan["train"] == [THREE, FOUR]
    assert again.champion()["version"] == 4


def add_a_field(airflow: Airflow) -> None:
    """From SIX on the logs have a field 900, and the settings a schema that knows it."""
    airflow.draw(6, SIX)
    skeleton = airflow.data / f"raw/ds={SIX}/sample_skeleton.csv"
    lines = [line.split(",", 5) for line in skeleton.read_text().splitlines()]
    more = [
        ",".join([*keys, str(int(number) + 1), f"{fields}\x01900\x02{place % 7}\x031.0"])
        for place, (*keys, number, fields) in enumerate(lines)
    ]
    skeleton.write_text("\n".join([*more, ""]))
    schema = airflow.data / "schema.yaml"
    known = (PROJECT / "configs/schemas/ali_ccp.yaml").read_text()
    schema.write_text(f'{known}\n  - {{name: "900", side: context, buckets: 64}}\n')
    settings = airflow.data / "settings.yaml"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"schema": str(schema)}))


def test_a_field_is_added_without_a_training_from_nothing(again: Airflow):
    """As docs/operations.md has it: the days to learn from are built anew, and all goes on."""
    add_a_field(again)
    again.clear(FIVE, "build_samples")
    assert again.wait(FIVE)["run"] == "success"
    states = again.run_days(SIX, SIX)
    assert states["run"] == "success" and "skipped" not in ended(states), states
    assert "fields that are not read: 900" in again.log(SIX, "predict_champion")
    assert "rows of 23 of 24 fields; fresh: 900" in again.log(SIX, "train")
    assert again.champion()["version"] == 5
