"""A schema as a table, and how much memory its embedding table takes, over all workers together.

    python -m jobs.describe_schema
    python -m jobs.describe_schema configs/schemas/ali_ccp.yaml --embedding-dim 8

A mistake in the file is told before anything else. The memory of a field is that of the numbers of its
rows; what the sparse optimizer keeps beside them comes on top, in the last lines.
"""

import argparse

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.text_table import aligned, with_rule
from schemas import schema_file
from schemas.fields import Field
from schemas.numbers import Number
from schemas.schema import Schema

HEADINGS = ("field", "side", "values", "buckets", "memory of rows")
NUMBER_HEADINGS = ("number", "side", "what the model sees", "meaning")
BYTES = 4  # of a float32


def state_numbers(dim: int) -> dict[str, int]:
    """By sparse optimizer: numbers that it keeps for each row of `dim` numbers."""
    return {"rowwise_adagrad": 1, "lazy_adam": 2 * dim + 1, "sgd": 0}


def describe(schema: Schema, dim: int) -> str:
    """The fields as a table, then the memory of all rows with the state of each optimizer."""
    table = aligned([HEADINGS, *(_row(field, dim) for field in schema.fields)], left=3)
    meanings = ("meaning", *(field.meaning for field in schema.fields))
    lines = [f"{line}  {meaning}".rstrip() for line, meaning in zip(table, meanings, strict=True)]
    numbers = ["", *_numbers(schema)] if schema.numbers else []
    return "\n".join([_heading(schema), "", *with_rule(lines), *numbers, "", *_totals(schema, dim)])


def _numbers(schema: Schema) -> list[str]:
    """The numeric fields as a table."""
    rows = [(one.name, one.side, _use(one), one.meaning) for one in schema.numbers]
    return with_rule(aligned([NUMBER_HEADINGS, *rows], left=4))


def _use(number: Number) -> str:
    """What the model sees of a number x."""
    value = "x" if number.clip is None else f"x within {number.clip[0]:g} and {number.clip[1]:g}"
    bent = f"ln(1 + {value})" if number.log1p else value
    return f"{number.quantiles} quantiles of {bent}" if number.quantiles else f"{bent}, standardised"


def _heading(schema: Schema) -> str:
    fields = f"{len(schema.user_fields)} user fields, {len(schema.impression_fields)} of each impression"
    if schema.numbers:
        fields += f", {len(schema.numbers)} numbers"
    return f"{schema.name}: {fields}; user_id {schema.user_id or '-'}, item_id {schema.item_id or '-'}"


def _row(field: Field, dim: int) -> tuple[str, ...]:
    values = f"{'list' if field.multi else 'one'}{', weighted' if field.weighted else ''}"
    memory = _megabytes(field.buckets * dim * BYTES)
    return field.name, field.side, values, f"{field.buckets:,}", memory


def _totals(schema: Schema, dim: int) -> list[str]:
    lines = [_total(name, schema.num_rows, dim, more) for name, more in state_numbers(dim).items()]
    return ["embedding table with the state of its optimizer, over all workers:", *aligned(lines)]


def _total(optimizer: str, rows: int, dim: int, more: int) -> tuple[str, str, str]:
    arithmetic = f"{rows:,} rows x ({dim} + {more}) numbers x {BYTES} bytes"
    return optimizer, arithmetic, f"= {_megabytes(rows * (dim + more) * BYTES)}"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("jobs.describe_schema", __doc__)
    parser.add_argument(
        "schema", nargs="?", metavar="FILE", help=f"YAML file of a schema; default: {schema_file.DEFAULT}"
    )
    parser.add_argument(
        "--embedding-dim", type=int, default=18, help="numbers of a row, model.embedding_dim (%(default)s)"
    )
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    if args.embedding_dim < 1:
        raise InputError(f"--embedding-dim: expected at least 1, found {args.embedding_dim}.")
    print(describe(schema_file.read(args.schema), args.embedding_dim), flush=True)


if __name__ == "__main__":
    exit_with_message(main)
