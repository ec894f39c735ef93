"""The gates against other calculations: numpy's least squares, scipy's normal, a value moved over a bound."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from esmm.registry.config import PromotionConfig
from esmm.registry.differences import Day, bounds, pooled
from esmm.registry.gates import covered, judge
from schemas.metrics import Metrics
from schemas.promotion import DayDifference, Gate
from tests.fixtures.metrics_v2 import drawn_metrics
from tests.fixtures.registered import difference, estimate

MARGIN = 0.01
DAYS = st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(1e-5, 0.1)), min_size=1, max_size=7)


def of_day(value: float | None, error: float | None) -> DayDifference:
    return DayDifference(value=value, error=error)


def evaluation(**auc: float | None) -> Any:
    """metrics.json that passes all gates; auc: differences of a task. Slices: 0.72, 0.65, one too small."""
    found = drawn_metrics(slices=True)
    for task in ("ctr", "cvr", "ctcvr"):
        found["slicings"][0]["slices"][2][task]["positives"] = 49
    for task in ("ctr", "cvr", "ctcvr"):
        found[task]["calibration_ratio"] = estimate(1.0)
        found.setdefault("against", {"run": "yesterday"})[task] = {
            "auc": difference(auc.get(task, 0.0), 1.959963984540054 * 0.004)
        }
    return found


def gates(found: Any, earlier: tuple[Day, ...] = (), **options: Any) -> dict[str, Gate]:
    config = PromotionConfig.model_validate(options)
    return {gate["name"]: gate for gate in judge(cast(Metrics, found), config, earlier, "against" in found)}


def broken(found: Any, **options: Any) -> list[str]:
    return [name for name, gate in gates(found, **options).items() if not gate["passed"]]


@given(DAYS)
def test_pooled_days_are_weighted_least_squares(days: list[tuple[float, float]]) -> None:
    """A constant fitted to the days, each scaled by its error: value and covariance by numpy."""
    values, errors = np.array(days).T
    fitted = np.linalg.lstsq((1 / errors)[:, None], values / errors, rcond=None)[0][0]
    found = pooled([of_day(*day) for day in days])
    assert found is not None and found.days == len(days)
    assert found.value == pytest.approx(fitted, abs=1e-9)
    assert found.error == pytest.approx(1 / np.sqrt((1 / errors**2).sum()), rel=1e-9)
    assert min(values) - 1e-12 <= found.value <= max(values) + 1e-12
    assert found.error <= min(errors) * (1 + 1e-12)


@given(DAYS)
def test_the_order_of_earlier_days_does_not_matter(days: list[tuple[float, float]]) -> None:
    first, *others = [of_day(*day) for day in days]
    there, back = pooled([first, *others]), pooled([first, *reversed(others)])
    assert there is not None and back is not None
    assert there == pytest.approx(back, rel=1e-9, abs=1e-12)


def test_a_day_that_says_nothing_of_its_candidate_has_no_pool() -> None:
    good = of_day(0.0, 0.001)
    assert pooled([of_day(None, None), good]) is None
    assert pooled([good, of_day(None, None)]) == (0.0, 0.001, 1)


def test_equal_models_count_on_their_own_day_alone() -> None:
    bad = of_day(-0.05, 0.001)
    assert pooled([of_day(0.0, 0.0), bad]) == (0.0, 0.0, 1)
    assert pooled([bad, of_day(0.0, 0.0)]) == (-0.05, 0.001, 1)


@given(st.floats(-0.1, 0.1), st.floats(1e-5, 0.1))
def test_one_day_passes_where_the_one_sided_p_value_is_below_5_percent(value: float, error: float) -> None:
    p = norm.sf((value + MARGIN) / error)
    found = evaluation()
    found["against"]["cvr"]["auc"] |= {"value": value, "low": value - 1.959963984540054 * error}
    found["against"]["cvr"]["auc"] |= {"high": value + 1.959963984540054 * error}
    gate = gates(found)["AUC of CVR (clicked) against the champion"]
    if abs(p - 0.05) > 1e-6:
        assert gate["passed"] == (p < 0.05)


def test_bounds_are_those_of_scipy() -> None:
    low, high = bounds(0.1, 0.02)
    assert (low, high) == pytest.approx(norm.interval(0.9, 0.1, 0.02))


NOT_BELOW = "AUC of CTCVR (all) against the champion"


def earlier(value: float, error: float, conversions: int = 40) -> Day:
    tasks = ("ctr", "cvr", "ctcvr")
    return Day(conversions, {task: of_day(value, error) for task in tasks})


def thin(value: float = 0.0) -> Any:
    """A day whose interval is too wide for the margin."""
    found = evaluation(ctcvr=value)
    found["against"]["ctcvr"]["auc"] |= {"low": value - 0.02, "high": value + 0.02}
    return found


def test_thin_days_prove_together_what_none_of_them_does() -> None:
    day = earlier(0.0, 0.02 / 1.959963984540054)
    assert not gates(thin())[NOT_BELOW]["passed"]
    gate = gates(thin(), (day, day, day))[NOT_BELOW]
    assert gate["passed"]  # 1.645 * 0.0102 / 2 = 0.0084
    assert "+0.0000, with 95 % confidence above -0.0084, has to be above -0.01" in gate["text"]
    assert "this day can show is 0.0286 (it found +0.0000), that of 4 days together 0.0143" in gate["text"]


def test_a_day_that_shows_a_loss_has_a_veto() -> None:
    good = earlier(0.01, 0.001)
    assert gates(thin(-0.02), (good,))[NOT_BELOW]["passed"]
    gate = gates(thin(-0.03), (good,))[NOT_BELOW]
    assert not gate["passed"]
    assert "this day alone is with 95 % confidence below -0.0132" in gate["text"]


def test_conversions_are_counted_over_all_days() -> None:
    found = evaluation()
    found["ctcvr"]["positives"] = 30
    assert not gates(found, (earlier(0, 0.01, 19),))["conversions"]["passed"]
    gate = gates(found, (earlier(0, 0.01, 20),))["conversions"]
    assert gate["passed"] and gate["text"] == "50 conversions on 2 days, at least 50 are asked for"


def test_nothing_is_broken_by_a_good_candidate() -> None:
    assert broken(evaluation()) == []


@pytest.mark.parametrize(("ratio", "passed"), [(0.79, False), (0.8, True), (1.25, True), (1.26, False)])
def test_calibration_has_two_bounds(ratio: float, passed: bool) -> None:
    found = evaluation()
    found["ctr"]["calibration_ratio"] = estimate(ratio)
    assert gates(found)["calibration ratio of CTR"]["passed"] == passed


def test_the_first_model_has_only_to_beat_the_baselines() -> None:
    found = evaluation()
    found["ctr"]["calibration_ratio"] = estimate(3.0)
    names = [gate["name"] for gate in judge(found, PromotionConfig(), (), has_champion=False)]
    assert names == [
        "conversions",
        *(f"AUC of {t} above constant" for t in ("CTR (all)", "CVR (clicked)", "CTCVR (all)")),
    ]


@pytest.mark.parametrize(("missing", "passed"), [(0, True), (1, True), (2, False)])
def test_a_candidate_has_to_have_learnt_from_its_days(missing: int, passed: bool) -> None:
    days = [f"2026-11-0{number}" for number in range(1, missing + 1)]
    gate = covered(days, PromotionConfig())
    assert gate["passed"] == passed
    assert gate["text"].startswith(f"missing: {', '.join(days)}" if days else "none is missing")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_figure_that_is_no_number_breaks_its_gates(value: float | None) -> None:
    found = evaluation()
    for name in ("auc", "calibration_ratio"):
        found["ctcvr"][name] = estimate(value)
    found["against"]["ctcvr"]["auc"] |= {"value": value}
    assert broken(found) == ["AUC of CTCVR (all) above constant", "calibration ratio of CTCVR", NOT_BELOW]


def test_a_day_without_conversions_is_kept_with_the_reason() -> None:
    found = evaluation() | {task: drawn_metrics(clicks=False)[task] for task in ("cvr", "ctcvr")}
    for task in ("cvr", "ctcvr"):
        found["against"][task] = {"auc": difference(None, 0)}
    told = gates(found)
    assert not told["conversions"]["passed"] and not told[NOT_BELOW]["passed"]
    assert (
        told["AUC of CTCVR (all) above constant"]["text"]
        == "undefined: no positives among 20,000 impressions"
    )
    assert told[NOT_BELOW]["text"].startswith("undefined on this day: no positives")


def test_baselines_are_compared_where_they_are_asked_for() -> None:
    found = evaluation()
    gain = found["ctr"]["auc"]["value"] - 0.5
    assert "AUC of CTR (all) above constant" in broken(found, baselines={"constant": gain})
    assert "AUC of CTR (all) above constant" not in broken(found, baselines={"constant": gain - 1e-6})
    missing = gates(found, baselines={"item_rate": 0})["AUC of CTR (all) above item_rate"]
    assert not missing["passed"] and "--train" in missing["text"]
    for task in ("ctr", "cvr", "ctcvr"):
        found[task]["baselines"]["item_rate"] = {"auc": 0.51}
    assert broken(found, baselines={"item_rate": 0.0}) == []


def test_slices_with_enough_positives_are_judged() -> None:
    name = "calibration ratio of CTR in each slice"
    gate = gates(evaluation(), slices={"ctr": [0.7, 1.5]})[name]
    assert not gate["passed"]
    assert gate["text"] == (
        "1 of 2 slices with 50 positives or more are from 0.7 to 1.5; not hour night: 0.650"
    )
    assert "hour noon: undefined" in gates(evaluation(), slices={"min_positives": 49})[name]["text"]
    assert name not in gates(evaluation(), slices={"min_positives": 81})
