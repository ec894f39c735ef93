"""What a day of daily retraining is to do: which days its candidate learns from, and beginning with what.

The newest day judges and is not trained on: a candidate of day D learns from days before D.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypedDict

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Champion:
    """version: in the registry. run: its run folder. day: the last day that it has learnt from."""

    version: int
    run: str
    day: date


@dataclass(frozen=True)
class Periods:
    """window: days that a training from nothing learns from, and a warm one at most. full_every: days between
    two trainings from nothing, by the calendar; 0 for never."""

    window: int
    full_every: int


class Plan(TypedDict):
    """Days as YYYY-MM-DD. parent: the champion's version, which the candidate is to follow. warm_start: the
    run that it begins with. train: days to learn from; none: there is nothing to train. missing: days that
    should be among them and have no samples. against: the day before, which the judging day is profiled
    against."""

    day: str
    parent: int | None
    champion_run: str | None
    warm_start: str | None
    train: list[str]
    missing: list[str]
    against: str | None
    reason: str


def plan(day: date, known: Collection[date], champion: Champion | None, periods: Periods) -> Plan:
    """known: days that have samples."""
    before = sorted(one for one in known if one < day)
    warm = champion is not None and not _is_full(day, periods)
    first = day - periods.window * ONE_DAY
    if warm and champion:
        first = max(first, champion.day + ONE_DAY)
    elif before:
        first = max(first, before[0])  # nothing is missing before the first day there is
    wanted = [first + number * ONE_DAY for number in range((day - first).days)]
    train = [one for one in wanted if one in known]
    return Plan(
        day=day.isoformat(),
        parent=champion.version if champion else None,
        champion_run=champion.run if champion else None,
        warm_start=champion.run if champion and warm else None,
        train=[one.isoformat() for one in train],
        missing=[one.isoformat() for one in wanted if one not in known and before],
        against=before[-1].isoformat() if before else None,
        reason=_reason(day, train, champion, warm),
    )


def _is_full(day: date, periods: Periods) -> bool:
    return periods.full_every > 0 and day.toordinal() % periods.full_every == 0


def _reason(day: date, train: list[date], champion: Champion | None, warm: bool) -> str:
    learnt = f"{len(train)} day(s), the last of them {train[-1]}" if train else ""
    if champion is None:
        return f"the first model, from {learnt}" if train else f"no day before {day} to learn from"
    if not train:
        return f"nothing new before {day}: version {champion.version} has learnt up to {champion.day}"
    begin = f"goes on from version {champion.version}" if warm else "from nothing, as is due today"
    return f"{begin}, with {learnt}"
