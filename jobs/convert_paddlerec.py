r"""PaddleRec's text of Ali-CCP to raw logs: user fields, which stand on every line there, are written once.

    python -m jobs.convert_paddlerec --input 'data/train/*' --out raw/train
    python -m jobs.build_samples --skeleton raw/train --common raw/train --out samples/split=train

A line is `sample_id,click,conversion,field:id,field:id,...`, as the esmm of PaddleRec reads it. It tells no
values, so all are 1, and id 0, which pads, is left out. --out gets sample_skeleton.csv, common_features.csv,
rejected.csv with the lines that are not in this form, and converted.json with counts. Too many of them stop
the command before anything is published.
"""

import argparse
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, NamedTuple

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from cli.version import WRITTEN_BY
from schemas import schema_file
from schemas.schema import Schema
from storage import outputs, staging
from storage.filesystems import filesystem
from storage.json_files import write_json

LOG = logging.getLogger(__name__)

SUMMARY_NAME = "converted.json"
SKELETON, COMMON, REJECTED = "sample_skeleton.csv", "common_features.csv", "rejected.csv"
OUTPUT = outputs.Kind(
    content="converted logs",
    manifest=SUMMARY_NAME,
    keys=frozenset(("lines", "rejected")),
    names=r"(sample_skeleton|common_features|rejected)\.csv",
)
HEAD = re.compile(r"(\d{1,18}),([01]),([01]),")
TOKEN = re.compile(r"([0-9A-Za-z_]+):(\d{1,18})")
LINES_PER_REPORT = 1_000_000


class BadLineError(Exception):
    """A line that is not in PaddleRec's form: its reason, a word for the counts."""


class Converted(NamedTuple):
    """A line as raw logs have it. context: the key of `common`, the features of the user's side."""

    skeleton: str
    context: str
    common: str


@dataclass(frozen=True)
class Sides:
    """Names of the fields of either side."""

    user: frozenset[str]
    impression: frozenset[str]

    @classmethod
    def of(cls, schema: Schema) -> "Sides":
        user, impression = schema.user_fields, schema.impression_fields
        return cls(frozenset(f.name for f in user), frozenset(f.name for f in impression))


def convert(line: str, sides: Sides) -> Converted:
    """Raises `BadLineError`."""
    head = HEAD.match(line)
    if head is None:
        raise BadLineError("head")
    user: list[str] = []
    impression: list[str] = []
    for token in line[head.end() :].split(","):
        found = TOKEN.fullmatch(token)
        if found is None:
            raise BadLineError("feature")
        field, feature = found.groups()
        if field not in sides.user and field not in sides.impression:
            raise BadLineError("field")
        if int(feature):
            side = user if field in sides.user else impression
            side.append(f"{field}\x02{int(feature)}\x031.0")
    if not user:
        raise BadLineError("no_user_fields")
    common = "\x01".join(sorted(user))
    context = hashlib.blake2b(common.encode(), digest_size=8).hexdigest()
    sample, click, conversion = head.groups()
    skeleton = f"{sample},{click},{conversion},{context},{len(impression)},{chr(1).join(impression)}\n"
    return Converted(skeleton, context, f"{context},{len(user)},{common}\n")


class Writer:
    """Writes converted lines, and each context once."""

    def __init__(self, skeleton: IO[str], common: IO[str], rejected: IO[str]) -> None:
        self.skeleton = skeleton
        self.common = common
        self.rejected = rejected
        self.contexts: set[bytes] = set()
        self.lines = 0
        self.reasons: Counter[str] = Counter()

    def add(self, path: str, number: int, line: str, sides: Sides) -> None:
        """A line of a file; number: from 1 on."""
        self.lines += 1
        try:
            found = convert(line, sides)
        except BadLineError as error:
            self.reasons[str(error)] += 1
            self.rejected.write(f"{error},{path},{number},{line}\n")
            return
        self.skeleton.write(found.skeleton)
        key = bytes.fromhex(found.context)
        if key not in self.contexts:
            self.contexts.add(key)
            self.common.write(found.common)

    def require_few_rejected(self, share: float) -> None:
        """`InputError` where there are no lines, or more than this share is not in PaddleRec's form."""
        rejected = self.reasons.total()
        if self.lines == 0:
            raise InputError("--input: expected lines of PaddleRec's text, found none. Check the paths.")
        if rejected > share * self.lines:
            counts = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            raise InputError(
                f"{rejected} of {self.lines} lines are not `sample_id,click,conversion,field:id,...` "
                f"({counts}), more than --max-broken-share {share} allows. Nothing was written; check that "
                "these are PaddleRec's files and --schema has their fields."
            )


def find_files(patterns: list[str]) -> list[str]:
    """Files, and those that globs stand for, sorted."""
    found = []
    for pattern in patterns:
        fs, path = filesystem(pattern)
        files = sorted(fs.glob(path)) if any(c in path for c in "*?[") else [path]
        files = [file for file in files if fs.isfile(file)]
        if not files:
            raise InputError(f"--input {pattern}: expected a file, found none.")
        found += [fs.unstrip_protocol(file) for file in files]
    return found


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without their ends; what is not UTF-8 is replaced, so that it is rejected."""
    fs, target = filesystem(path)
    compression = "gzip" if target.endswith(".gz") else None
    with fs.open(target, "rt", encoding="utf-8", errors="replace", compression=compression) as stream:
        for number, line in enumerate(stream, 1):
            yield number, line.rstrip("\r\n")


def write_logs(out: str, files: list[str], schema: Schema, share: float, overwrite: bool) -> Writer:
    """Convert files into the folder `out`, which appears whole or not at all."""
    outputs.refuse_taken(out, OUTPUT, overwrite)
    sides = Sides.of(schema)
    with staging.beside(out) as staged:
        fs, folder = filesystem(staged)
        with ExitStack() as stack:
            streams = [
                stack.enter_context(fs.open(f"{folder}/{name}", "wt", encoding="utf-8"))
                for name in (SKELETON, COMMON, REJECTED)
            ]
            writer = Writer(*streams)
            for path in files:
                for number, line in read_lines(path):
                    writer.add(path, number, line, sides)
                    if writer.lines % LINES_PER_REPORT == 0:
                        LOG.info("%d million lines, %s", writer.lines // LINES_PER_REPORT, path)
        writer.require_few_rejected(share)
        summary = {
            "lines": writer.lines,
            "contexts": len(writer.contexts),
            "rejected": dict(writer.reasons),
            "files": files,
            "written_by": WRITTEN_BY,
        }
        write_json(f"{staged}/{SUMMARY_NAME}", summary)
        outputs.publish(staged, out, OUTPUT, overwrite)
    return writer


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.convert_paddlerec", __doc__)
    parser.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files or globs; .gz too")
    parser.add_argument("--out", required=True, help="folder to make")
    schema_file.add_option(parser)
    parser.add_argument(
        "--max-broken-share",
        type=float,
        default=0.01,
        help="of the lines, above which it stops (%(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace converted logs that stand there")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    schema = schema_file.read(args.schema)
    files = find_files(args.input)
    done = write_logs(args.out, files, schema, args.max_broken_share, args.overwrite)
    rejected = f", {done.reasons.total()} rejected ({args.out}/{REJECTED})" if done.reasons else ""
    print(f"{args.out}: {done.lines:,} lines, {len(done.contexts):,} contexts{rejected}")


if __name__ == "__main__":
    exit_with_message(main)
