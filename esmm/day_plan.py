"""Plan a day of daily retraining: which days its candidate learns from, and beginning with what.

    python -m esmm.day_plan --day 2026-11-05 --samples samples --registry registry --out plan.json
    python -m esmm.day_plan ... --profiles profiles --runs runs --config configs/demo.yaml

The newest day judges and is not trained on: a candidate of day D learns from days before D, those since the
champion's last one. With --profiles only days whose profile passed its gates count. A plan that is there
stays, unless other periods are asked for: a day that is run again does what it did before. With --runs it
says where the candidate's run belongs: a folder whose name stands for all that the run is made of, so that
none that is registered is ever trained over. It is printed as one line of JSON. docs/registry.md says what
comes after it.
"""

import argparse
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypedDict, cast

from cli.arguments import CommandParser, iso_day
from cli.errors import InputError, exit_with_message
from esmm.registry.champion import champion_of
from esmm.registry.place import place_of
from schemas import manifest
from schemas.profile import read_profile
from storage import publishing
from storage.filesystems import exists, names_in
from storage.json_files import read_json, write_json

ONE_DAY = timedelta(days=1)
PREFIX = "ds="
KEY_DIGITS = 12


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
    should be among them and have no samples, or none that passed their gates. against: days that this one
    is profiled against, those to learn from or else the one before. periods: window and full_every that it
    was made for."""

    day: str
    periods: list[int]
    parent: int | None
    champion_run: str | None
    warm_start: str | None
    train: list[str]
    missing: list[str]
    against: list[str]
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
        periods=[periods.window, periods.full_every],
        parent=champion.version if champion else None,
        champion_run=champion.run if champion else None,
        warm_start=champion.run if champion and warm else None,
        train=[one.isoformat() for one in train],
        missing=[one.isoformat() for one in wanted if one not in known and before],
        against=[one.isoformat() for one in train or before[-1:]],
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


def days_with_samples(folder: str) -> set[date]:
    """Days D whose samples are whole, in folders ds=D; none where there is no folder yet."""
    named = [name for name in names_in(folder) if name.startswith(PREFIX)]
    return {_day_of(folder, name) for name in named if publishing.is_complete(f"{folder}/{name}")}


def _day_of(folder: str, name: str) -> date:
    try:
        return date.fromisoformat(name.removeprefix(PREFIX))
    except ValueError as error:
        raise InputError(
            f"{folder}/{name}: expected a day as {PREFIX}YYYY-MM-DD, found another name. Rename or remove it."
        ) from error


def admitted(days: set[date], samples: str, profiles: str) -> set[date]:
    """Those of the days whose profile, PROFILES/ds=D.json, is of these samples and broke no gate."""
    return {day for day in days if _is_admitted(f"{samples}/{PREFIX}{day}", f"{profiles}/{PREFIX}{day}.json")}


def _is_admitted(samples: str, profile: str) -> bool:
    if not exists(profile):
        return False
    found = read_profile(profile)
    counts = manifest.read(samples)["counts"]
    return not found["gates"]["broken"] and found["counts"].items() <= counts.items()


def run_key(made: Plan, samples: str, config: str | None, settings: list[str]) -> str:
    """Stands for all that a candidate's run is made of: samples as their manifests describe them, the run
    that it begins with, configuration and settings."""
    content: dict[str, Any] = {
        "samples": [dict(manifest.read(f"{samples}/{PREFIX}{day}")) for day in made["train"]],
        "warm_start": made["warm_start"],
        "config": Path(config).read_text() if config else None,
        "settings": settings,
    }
    for one in content["samples"]:
        one.pop("written_by", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]


def stored(path: str | None, periods: Periods) -> Plan | None:
    """The plan that is there, if it was made for these periods."""
    if path is None or not exists(path):
        return None
    found = read_json(path)
    asked = [periods.window, periods.full_every]
    return cast(Plan, found) if found.get("periods") == asked else None


def read_champion(registry: str, name: str) -> Champion | None:
    """From the registry; `InputError` where its run is gone."""
    found = champion_of(place_of(registry, None), name)
    return Champion(found.number, str(found.run), date.fromisoformat(found.day)) if found else None


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("esmm.day_plan", __doc__)
    parser.add_argument("--day", required=True, type=iso_day, help="the day that judges")
    parser.add_argument(
        "--samples", required=True, metavar="DIR", help="folder of the days' samples, ds=D each"
    )
    parser.add_argument("--registry", required=True, metavar="DIR", help="as of esmm.registry")
    parser.add_argument("--name", default="esmm", help="of the registered model (%(default)s)")
    parser.add_argument("--window", type=int, default=7, help="days to learn from at most (%(default)s)")
    parser.add_argument(
        "--full-every",
        type=int,
        default=28,
        metavar="DAYS",
        help="train from nothing so often; 0: never (%(default)s)",
    )
    parser.add_argument("--profiles", metavar="DIR", help="profiles of the days, ds=D.json each")
    parser.add_argument("--runs", metavar="DIR", help="folder of the days' runs")
    parser.add_argument("--config", metavar="YAML", help="that the candidate is trained with")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", dest="settings", help="as of esmm.train"
    )
    parser.add_argument("--out", metavar="FILE", help="where the plan is kept")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    if args.window < 1 or args.full_every < 0:
        raise InputError(
            f"--window, --full-every: expected at least 1 and 0, found {args.window} and {args.full_every}."
        )
    periods = Periods(args.window, args.full_every)
    made = stored(args.out, periods) or plan(
        args.day, known_days(args), read_champion(args.registry, args.name), periods
    )
    if args.out:
        write_json(args.out, dict(made))
    print(json.dumps(dict(made) | run_of(made, args)))


def known_days(args: argparse.Namespace) -> set[date]:
    """Days that may be learnt from."""
    days = days_with_samples(args.samples)
    return admitted(days, args.samples, args.profiles) if args.profiles else days


def run_of(made: Plan, args: argparse.Namespace) -> dict[str, str]:
    """Where the candidate's run belongs; nothing without --runs."""
    if not args.runs:
        return {}
    key = run_key(made, args.samples, args.config, args.settings)
    return {"run": f"{args.runs}/{PREFIX}{made['day']}/{key}"}


if __name__ == "__main__":
    exit_with_message(main)
