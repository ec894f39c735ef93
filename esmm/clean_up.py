"""Remove what daily retraining no longer needs: folders ds=D of old days.

    python -m esmm.clean_up --day 2026-11-22 --registry registry --keep samples=35 --keep runs=14
    python -m esmm.clean_up --day 2026-11-22 --registry registry --keep raw=60 --dry-run

--keep FOLDER=DAYS: of the folders ds=D in FOLDER those stay that are of the last DAYS days up to --day, and
all that are later. The run of a version with an alias, and of the version that a rollback would reach after
it, stays whatever its age. Nothing but folders named ds=YYYY-MM-DD is touched.
"""

import argparse
import logging
import shutil
from collections.abc import Collection
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from cli.arguments import CommandParser, iso_day
from cli.errors import exit_with_message
from cli.log import set_up_logging
from esmm.registry.place import is_new, place_of, reading
from esmm.registry.store import State
from storage.filesystems import filesystem, is_local, names_in
from storage.publishing import SUCCESS_NAME

LOG = logging.getLogger("esmm.clean_up")
PREFIX = "ds="


class Keep(NamedTuple):
    """A folder of days, and how many of them stay."""

    folder: str
    days: int


def keep_of(text: str) -> Keep:
    """An option --keep."""
    folder, _, days = text.rpartition("=")
    if not folder or not days.isdigit() or int(days) < 1:
        raise argparse.ArgumentTypeError(f"expected FOLDER=DAYS with at least one day, found {text!r}")
    return Keep(folder.rstrip("/"), int(days))


def outdated(names: Collection[str], day: date, days: int) -> list[str]:
    """Of names in a folder the days ds=D that are more than `days` old, oldest first; others never."""
    first = day - timedelta(days=days - 1)
    return sorted(name for name in names if (found := _day_of(name)) is not None and found < first)


def _day_of(name: str) -> date | None:
    try:
        return date.fromisoformat(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    except ValueError:
        return None


def runs_in_use(state: State) -> set[Path]:
    """Run folders of the versions with an alias, and of the one before `previous`."""
    numbers = set(state.aliases.values())
    before = [state.versions[number].tags.get("promoted_from") for number in numbers]
    numbers |= {int(number) for number in before if number is not None}
    return {state.versions[number].run.resolve() for number in numbers if number in state.versions}


def holds_any(folder: Path, runs: Collection[Path]) -> bool:
    """Whether one of the runs is the folder or lies in it."""
    return any(run.is_relative_to(folder.resolve()) for run in runs)


def remove(folder: str) -> None:
    """Its mark goes first, so that nobody takes what is left of it for whole."""
    fs, path = filesystem(folder)
    if fs.exists(f"{path}/{SUCCESS_NAME}"):
        fs.rm(f"{path}/{SUCCESS_NAME}")
    if is_local(fs):
        shutil.rmtree(path)
    else:
        fs.rm(path, recursive=True)


def clean(keep: Keep, day: date, runs: Collection[Path], dry: bool) -> int:
    """Remove a folder's old days; how many."""
    fs, path = filesystem(keep.folder)
    removed = 0
    for name in outdated(names_in(keep.folder), day, keep.days):
        folder = f"{keep.folder}/{name}"
        if is_local(fs) and holds_any(Path(path) / name, runs):
            LOG.info("%s: stays, a version in use has its run there", folder)
            continue
        if not dry:
            remove(folder)
        LOG.info("%s: %s", folder, "would be removed" if dry else "removed")
        removed += 1
    return removed


def read_runs(registry: str, name: str) -> set[Path]:
    """`runs_in_use` of a registry; none where nothing was ever registered."""
    place = place_of(registry, None)
    if is_new(place):
        return set()
    with reading(place, name) as store:
        return runs_in_use(store.read())


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("esmm.clean_up", __doc__)
    parser.add_argument("--day", required=True, type=iso_day, help="the newest day")
    parser.add_argument("--registry", required=True, metavar="DIR", help="as of esmm.registry")
    parser.add_argument("--name", default="esmm", help="of the registered model (%(default)s)")
    parser.add_argument(
        "--keep", required=True, action="append", type=keep_of, metavar="FOLDER=DAYS", help="may be repeated"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    runs = read_runs(args.registry, args.name)
    for keep in args.keep:
        removed = clean(keep, args.day, runs, args.dry_run)
        print(f"{keep.folder}: {removed} day(s) {'would go' if args.dry_run else 'removed'}")


if __name__ == "__main__":
    exit_with_message(main)
