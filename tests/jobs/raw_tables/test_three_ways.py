"""Drawn logs as text, as two tables and as one flat table give the same samples, and plain Python's."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.raw_logs import packed_rows
from jobs.raw_logs.chunks import Chunk
from jobs.raw_logs.files import LogFile
from jobs.raw_logs.source import Parser
from schemas.fields import Field
from schemas.schema import Schema, Tables
from tests.fixtures import table_logs
from tests.fixtures.raw_lines import feature
from tests.fixtures.table_logs import SEED, TableRows
from tests.jobs.raw_tables.test_pack import BY_ORDER, packed, unpacked

NAMES = st.from_regex(r"[0-9]{3}(_14)?", fullmatch=True)
WHOLE = Tables("context", "impression", "clicked", "bought")


@st.composite
def drawn(draw: st.DrawFn) -> TableRows:
    """Rows that text logs can have too: ids are numbers of at least 0, contexts have 16 digits."""
    schema = draw(table_logs.schemas(NAMES))
    fields = tuple(replace(field, max_length=None, keep="first") for field in schema.fields)
    schema = replace(schema, fields=fields, tables=WHOLE, numbers=())
    rows = draw(table_logs.table_rows(schema, text=False))
    different = st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=4, unique=True)
    keys = {f"c{number}": key for number, key in enumerate(draw(different))}
    for row in (*rows.contexts, *rows.impressions):
        row["context"] = f"{keys[row['context']]:016x}"
        for field in schema.fields:
            if row.get(field.name) is not None:
                ids = row[field.name]
                row[field.name] = [abs(i) for i in ids] if field.multi else abs(ids)
    return rows


def _features(row: dict[str, Any], fields: tuple[Field, ...]) -> str:
    found = []
    for field in fields:
        ids = (row[field.name] or []) if field.multi else [row[field.name]]
        weights = row[f"w_{field.name}"] if field.weighted else [1.0] * len(ids)
        weights = weights if isinstance(weights, list) else [weights]
        pairs = zip(ids, weights, strict=True)
        found += [feature(field.name, i, repr(float(weight))) for i, weight in pairs if i is not None]
    return f"{len(found)},{chr(1).join(found)}\n"


def of_text(rows: TableRows) -> pa.Table:
    """Packed rows of the same logs as lines."""
    text = replace(rows.schema, tables=None)
    common = [f"{row['context']},{_features(row, text.user_fields)}" for row in rows.contexts]
    skeleton = [
        f"{row['impression']},{row['clicked']:d},{row['bought']},{row['context']},"
        + _features(row, text.impression_fields)
        for row in rows.impressions
    ]
    batches = []
    for number, lines in ((0, common), (1, skeleton)):
        parser = Parser(LogFile(number, "", number == 0, 0), text, SEED)
        batches += parser.rows(Chunk(0, "".join(lines).encode()))
    return pa.Table.from_batches(batches, packed_rows.arrow_schema()).sort_by(BY_ORDER).combine_chunks()


def flat(rows: TableRows) -> TableRows:
    """The context again in every row of its impressions."""
    contexts = {row["context"]: row for row in rows.contexts}
    repeated = [contexts[row["context"]] for row in rows.impressions]
    return replace(rows, contexts=repeated)


def samples_of(rows: pa.Table, schema: Schema) -> dict[Any, dict[str, Any]]:
    table, unpacker = unpacked(rows, schema)
    assert unpacker.take_rejected() == []
    return table_logs.of_samples(table, schema)


@settings(max_examples=80, deadline=None)
@given(drawn())
def test_text_two_tables_and_one_flat_table_give_the_same_samples(rows: TableRows) -> None:
    schema = rows.schema
    expected = table_logs.expected(rows, schema)
    assert samples_of(packed(rows, []), schema) == expected
    assert samples_of(packed(flat(rows), []), schema) == expected
    assert samples_of(of_text(rows), replace(schema, tables=None)) == expected
