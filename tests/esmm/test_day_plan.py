"""Which days a candidate learns from: no day twice, never the judging one, nothing silently left out."""

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esmm.day_plan import Champion, Periods, plan

FIRST = date(2026, 11, 1)
NEVER_FULL = Periods(window=7, full_every=0)


def _day(number: int) -> date:
    return FIRST + timedelta(days=number - 1)


def _champion(number: int) -> Champion:
    return Champion(version=3, run="runs/champion", day=_day(number))


def test_the_first_day_has_nothing_to_learn_from_and_the_second_learns_from_it() -> None:
    first = plan(_day(1), [_day(1)], None, NEVER_FULL)
    assert (first["train"], first["against"], first["missing"]) == ([], [], [])
    assert first["reason"] == "no day before 2026-11-01 to learn from"
    second = plan(_day(2), [_day(1), _day(2)], None, NEVER_FULL)
    assert (second["train"], second["warm_start"], second["parent"]) == (["2026-11-01"], None, None)
    assert (second["against"], second["missing"]) == (["2026-11-01"], [])


def test_a_candidate_goes_on_from_the_champion_with_all_days_since() -> None:
    found = plan(_day(6), [_day(n) for n in range(1, 7)], _champion(3), NEVER_FULL)
    assert found["train"] == found["against"] == ["2026-11-04", "2026-11-05"]
    assert (found["warm_start"], found["parent"]) == ("runs/champion", 3)
    assert found["reason"] == "goes on from version 3, with 2 day(s), the last of them 2026-11-05"


def test_a_day_without_samples_is_said_to_be_missing() -> None:
    found = plan(_day(6), [_day(1), _day(2), _day(4), _day(6)], _champion(2), NEVER_FULL)
    assert (found["train"], found["missing"]) == (["2026-11-04"], ["2026-11-03", "2026-11-05"])
    assert found["against"] == ["2026-11-04"]


def test_an_old_champion_is_not_followed_further_back_than_the_window() -> None:
    found = plan(_day(20), [_day(n) for n in range(1, 21)], _champion(2), Periods(3, 0))
    assert found["train"] == ["2026-11-17", "2026-11-18", "2026-11-19"]


def test_a_training_from_nothing_comes_by_the_calendar() -> None:
    days = [_day(n) for n in range(1, 30)]
    full = [day for day in days if plan(day, days, _champion(1), Periods(5, 7))["warm_start"] is None]
    assert [(b - a).days for a, b in pairwise(full)] == [7] * (len(full) - 1)
    found = plan(full[1], days, _champion(1), Periods(5, 7))
    assert len(found["train"]) == 5 and found["parent"] == 3
    assert found["reason"].startswith("from nothing, as is due today")


def test_a_champion_that_has_learnt_from_the_day_before_leaves_nothing() -> None:
    found = plan(_day(4), [_day(n) for n in range(1, 5)], _champion(3), NEVER_FULL)
    assert found["train"] == []
    assert found["reason"] == "nothing new before 2026-11-04: version 3 has learnt up to 2026-11-03"


@given(
    known=st.sets(st.integers(1, 40)),
    judge=st.integers(1, 40),
    champion=st.none() | st.integers(1, 40),
    window=st.integers(1, 10),
    full_every=st.integers(0, 9),
)
def test_no_day_is_learnt_twice_and_none_that_judges(
    known: set[int], judge: int, champion: int | None, window: int, full_every: int
) -> None:
    of_champion = None if champion is None else _champion(champion)
    found = plan(_day(judge), {_day(n) for n in known}, of_champion, Periods(window, full_every))
    train = [date.fromisoformat(text) for text in found["train"]]
    assert train == sorted(set(train))
    assert all(_day(judge) - timedelta(days=window) <= day < _day(judge) for day in train)
    assert all(day in {_day(n) for n in known} for day in train)
    if found["warm_start"] and of_champion:
        assert all(day > of_champion.day for day in train)
    assert not set(found["train"]) & set(found["missing"])


@pytest.mark.parametrize("known", [[], [6, 7]])
def test_days_after_the_judging_one_do_not_count(known: list[int]) -> None:
    found = plan(_day(5), [_day(n) for n in known], None, NEVER_FULL)
    assert (found["train"], found["missing"], found["against"]) == ([], [], [])
