"""Propose a schema for tables: a YAML file of fields, with comments on what to check.

    python -m jobs.propose_schema --impressions shop/impressions --contexts shop/contexts --out shop.yaml

    # one flat table that Spark's catalogue knows; more of it than by default
    python -m jobs.propose_schema --format table --impressions logs.shown --rows 5000000 --out shown.yaml

Reads some of the rows and counts: nulls, ids, lengths of lists, and what varies within a context and an
item. Names of columns say what is a key, a label, the user and the item, as far as they do. The file is a
beginning: its comments say what was guessed, and what to fill in. docs/own_logs.md goes on from there.
"""

import argparse
import logging
import sys
from pathlib import Path

if not __package__:  # spark-submit puts this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pyspark.sql import SparkSession

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from jobs import progress
from jobs.raw_tables.source import add_table_arguments, read
from jobs.schema_proposal.making import propose
from jobs.schema_proposal.proposal import Proposal
from jobs.schema_proposal.survey import survey
from jobs.schema_proposal.text import CHECK, table_text, yaml_text
from jobs.session import spark_session, task_errors_as_input_errors
from storage.filesystems import filesystem
from storage.json_files import write_text

ROWS = 1_000_000
# A plan has some terms for each column: Spark need not warn that it won't print them all.
SPARK_OPTIONS = {"spark.driver.memory": "2g", "spark.sql.debug.maxToStringFields": "10000"}

LOG = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.propose_schema", __doc__)
    add_table_arguments(parser, required=True)
    parser.add_argument("--out", required=True, metavar="FILE", help="YAML file to write")
    parser.add_argument(
        "--rows",
        type=int,
        default=ROWS,
        help="about how many impressions are read, whole contexts where their key is known (%(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is already there")
    return parser.parse_args(argv)


def run(spark: SparkSession, args: argparse.Namespace) -> Proposal:
    """Look at the tables and write the proposal whole to `--out`."""
    refuse_taken(args.out, args.overwrite)
    impressions = read(spark, args.impressions, args.format)
    contexts = read(spark, args.contexts, args.format) if args.contexts else None
    with task_errors_as_input_errors(), progress.shown(spark, ("reading rows",)):
        found = survey(impressions, contexts, (args.impressions, args.contexts), args.rows)
    proposal = propose(found, Path(args.out).stem)
    refuse_taken(args.out, args.overwrite)
    write_text(args.out, yaml_text(proposal))
    return proposal


def refuse_taken(out: str, overwrite: bool) -> None:
    """Stop where there is something: a schema that was corrected by hand is not lost by a second call."""
    fs, path = filesystem(out)
    if fs.isdir(path):
        raise InputError(f"{out}: expected a file to write, found a folder.")
    if fs.exists(path) and not overwrite:
        raise InputError(f"{out}: found a file, expected none there. Choose another one or pass --overwrite.")


def summary(proposal: Proposal, args: argparse.Namespace) -> str:
    """What was proposed, what is missing, and the commands that come next."""
    lines = [table_text(proposal), ""]
    checks = yaml_text(proposal).count(f"# {CHECK}: ")
    lines += [f"missing: {line}" for line in proposal.missing]
    lines.append(
        f"written to {args.out}: {len(proposal.missing)} TODO, {checks} {CHECK}. Go through them, then:"
    )
    tables = f"--impressions {args.impressions}" + (f" --contexts {args.contexts}" if args.contexts else "")
    tables += f" --format {args.format}" if args.format != "parquet" else ""
    lines.append(f"    python -m jobs.describe_schema {args.out}")
    lines.append(f"    python -m jobs.build_samples {tables} --schema {args.out} --out SAMPLES")
    return "\n".join(lines)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    if args.rows < 1:
        raise InputError(f"--rows: expected at least 1, found {args.rows}.")
    refuse_taken(args.out, args.overwrite)
    spark = spark_session("esmm propose_schema", **SPARK_OPTIONS)
    try:
        proposal = run(spark, args)
    finally:
        spark.stop()
    print(summary(proposal, args), flush=True)


if __name__ == "__main__":
    exit_with_message(main)
