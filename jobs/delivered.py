"""Whether a day's raw logs are there whole, for whoever waits for them.

    python -m jobs.delivered --raw raw/ds=2026-11-22
    python -m jobs.delivered --raw raw/ds=2026-11-22 --tables

Whole: an empty file _SUCCESS in the folder, written after the last of its files; or, where each side is
written by a job of its own, one in sample_skeleton/ and one in common_features/. With --tables the sides are
impressions/ and contexts/.

exit codes:
    0    whole: the day may begin
    2    something is wrong that waiting does not mend, such as a mark beside one side alone
    3    not yet: the message says what is missing
"""

import argparse
import sys
from collections.abc import Collection

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from jobs.raw_logs.files import COMMON_PREFIX, SKELETON_PREFIX
from storage.filesystems import exists, names_in
from storage.publishing import SUCCESS_NAME

TEXT = (SKELETON_PREFIX, COMMON_PREFIX)
TABLES = ("impressions", "contexts")
EXIT_NOT_YET = 3


def missing(names: Collection[str], marked: Collection[str], sides: Collection[str] = TEXT) -> list[str]:
    """What has not come yet. names: in the day's folder; marked: those of the sides that hold a mark.

    `InputError` where the day is marked as whole and a side is not there.
    """
    if SUCCESS_NAME in names:
        absent = [side for side in sides if not any(name.startswith(side) for name in names)]
        if absent:
            raise InputError(
                f"expected logs of both sides beside {SUCCESS_NAME}, found nothing that begins with "
                f"{' or '.join(absent)}. Deliver the rest, then write {SUCCESS_NAME} again."
            )
        return []
    if not marked:
        return [SUCCESS_NAME]
    return [f"{side}/{SUCCESS_NAME}" for side in sides if side not in marked]


def read_missing(raw: str, sides: Collection[str] = TEXT) -> list[str]:
    """The same of a folder; one that is not there has not come yet."""
    names = names_in(raw)
    marked = [side for side in sides if side in names and exists(f"{raw}/{side}/{SUCCESS_NAME}")]
    try:
        return missing(names, marked, sides)
    except InputError as error:
        raise InputError(f"{raw}: {error}") from error


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.delivered", __doc__)
    parser.add_argument("--raw", required=True, metavar="DIR", help="folder of one day's logs")
    parser.add_argument("--tables", action="store_true", help="which are two tables, and not text")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    raw = args.raw.rstrip("/")
    if absent := read_missing(raw, TABLES if args.tables else TEXT):
        print(f"{raw}: not whole yet, {' and '.join(absent)} missing")
        sys.exit(EXIT_NOT_YET)
    print(f"{raw}: whole")


if __name__ == "__main__":
    exit_with_message(main)
