"""The logs that a command is given: text logs of both sides, or tables."""

import argparse

from cli.errors import InputError
from jobs.raw_logs.files import add_log_arguments
from jobs.raw_logs.text_format import require_text_schema
from jobs.raw_tables.columns import require_tables
from jobs.raw_tables.source import add_table_arguments
from schemas.schema import Schema

LOGS = ("skeleton", "common", "impressions", "contexts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name the logs of a command."""
    add_log_arguments(parser)
    add_table_arguments(parser)


def require_logs(args: argparse.Namespace, schema: Schema) -> None:
    """Text logs of both sides, or tables, and a schema for them."""
    is_text = bool(args.skeleton or args.common)
    if bool(args.impressions) == is_text or (is_text and not (args.skeleton and args.common)):
        raise InputError(
            "expected --skeleton and --common, of text logs, or --impressions, perhaps with --contexts, of "
            "tables; found " + (", ".join(f"--{name}" for name in LOGS if getattr(args, name)) or "none")
        )
    if is_text:
        require_text_schema(schema)
    else:
        require_tables(schema)
