"""What the text of Ali-CCP asks of a schema: names that the parser reads as numbers, ids that are numbers.

A name is three digits, perhaps with `_14` behind them, as Ali-CCP calls what is collected over 14 days.
"""

import re

import numpy as np

from cli.errors import InputError
from jobs.raw_logs.packed_rows import CONTEXT_HEADER, IMPRESSION_HEADER, frozen
from schemas.schema import Schema

NAME = re.compile(r"[0-9]{3}(_14)?")
HISTORY_SUFFIX = "_14"
FIELD_CODES = 2000
SHORTEST_FEATURE = len("999_9_9_")  # bytes, the separator behind it included


def require_text_schema(schema: Schema) -> None:
    """An `InputError` where no text of this format can have a schema's fields."""
    if schema.tables:
        raise InputError(
            f"schema {schema.name}: expected one of text logs, found one with a section tables. Give the "
            "tables to --impressions and --contexts, or another schema to --schema."
        )
    for what, names in (
        ("numbers", [number.name for number in schema.numbers]),
        ("max_length", [field.name for field in schema.fields if field.max_length is not None]),
    ):
        if names:
            found = ", ".join(names)
            raise InputError(f"schema {schema.name}: expected {what} for tables only, found {found}.")
    other = [field.name for field in schema.fields if not NAME.fullmatch(field.name)]
    if other:
        raise InputError(
            f"schema {schema.name}: expected fields named by three digits, perhaps with {HISTORY_SUFFIX}, as "
            f"text logs have them, found {', '.join(other)}. Give the schema of these logs to --schema."
        )


def field_of_code(schema: Schema) -> np.ndarray:
    """int16 [FIELD_CODES]: place of the field with each code, -1 where there is no such field."""
    table = np.full(FIELD_CODES, -1, dtype=np.int16)
    for place, field in enumerate(schema.fields):
        table[_field_code(field.name)] = place
    return frozen(table)


def _field_code(name: str) -> int:
    """The number in a field's name, plus 1000 for the histories: what the parser reads."""
    return int(name.removesuffix(HISTORY_SUFFIX)) + (1000 if name.endswith(HISTORY_SUFFIX) else 0)


def most_words(num_fields: int, num_lines: int, num_bytes: int) -> int:
    """No more words than this come from so many lines of so many bytes together."""
    per_line = max(CONTEXT_HEADER, IMPRESSION_HEADER) + 2 * num_fields
    return num_lines * per_line + num_bytes // SHORTEST_FEATURE * 2
