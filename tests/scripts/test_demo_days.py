"""The tables of the days: what they say of made-up days, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_days import Day, days_table, read_day, recovered, staleness_table

TASKS = ("ctr", "cvr", "ctcvr")


def _metrics(auc: float, run: str = "daily") -> dict[str, Any]:
    figures: dict[str, Any] = {task: {"auc": {"value": auc}, "share_of_best": 0.8} for task in TASKS}
    return figures | {"source": {"run": run}}


def _frozen(auc: float, value: float) -> dict[str, Any]:
    difference = {"value": value, "low": value - 0.01, "high": value + 0.015}
    return {**_metrics(auc, "frozen"), "against": {task: {"auc": difference} for task in TASKS}}


def test_the_price_of_staleness_is_what_daily_training_saves_of_the_way_to_the_truth() -> None:
    day = Day("2026-11-05", _metrics(0.72), _metrics(0.73), None, _frozen(0.70, -0.02))
    # the truth: 0.5 + 0.22 / 0.8 = 0.775; (0.72 - 0.70) / (0.775 - 0.70)
    assert recovered(day, "ctr") == pytest.approx((0.70, 0.72, 0.775, 0.02 / 0.075))
    lines = staleness_table([day, Day("2026-11-01", None, None, None, None)], "cvr").splitlines()
    assert lines[0] == "AUC of CVR" and len(lines) == 4
    assert lines[3].split() == [
        *("2026-11-05", "0.7000", "0.7200", "0.7750"),
        *("+0.0200", "[+0.0050,", "+0.0300]", "27%"),
    ]


def test_on_the_first_days_both_are_the_same_model() -> None:
    day = Day("2026-11-03", _metrics(0.70, "frozen"), None, None, _frozen(0.70, 0.0))
    assert staleness_table([day], "ctr").splitlines()[3].endswith("the same model          -")


def test_a_day_says_what_was_decided_and_why() -> None:
    decision = {"decision": "kept", "reason": "broken: conversions"}
    days = [Day("2026-11-01", None, None, None, None), Day("2026-11-02", None, _metrics(0.7), decision, None)]
    lines = days_table(days).splitlines()
    assert lines[2].split()[:3] == ["2026-11-01", "-", "-"] and lines[2].endswith("nothing to learn from")
    assert lines[3].split()[-6:] == ["0.7000", "0.7000", "0.7000", "kept", "broken:", "conversions"]


def test_a_day_is_read_from_what_its_stages_have_left(tmp_path: Path) -> None:
    of_day = tmp_path / "days/ds=2026-11-02"
    run = tmp_path / "runs/ds=2026-11-02/0123"
    for folder in (of_day / "champion", run):
        folder.mkdir(parents=True)
    (of_day / "plan.json").write_text(json.dumps({"champion_run": None}))
    (of_day / "champion/metrics.json").write_text("{}")  # of a plan that was made anew
    (run / "metrics.json").write_text(json.dumps(_metrics(0.7)))
    (run / "decision.json").write_text(json.dumps({"decision": "promoted"}))
    found = read_day(tmp_path, "2026-11-02")
    assert found == Day("2026-11-02", None, _metrics(0.7), {"decision": "promoted"}, None)
    assert read_day(tmp_path, "2026-11-03") == Day("2026-11-03", None, None, None, None)
