"""Rows of tables through packing and unpacking, against plain Python and against the same logs as text."""

from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.raw_logs import packed_rows
from jobs.raw_logs.id_lookup import IdTable
from jobs.raw_tables import hash_kernel
from jobs.raw_tables.field_values import hash_ids
from jobs.raw_tables.pack import Packer
from jobs.sample_writer.unpack import Unpacker
from schemas import samples
from schemas.fields import Field
from schemas.hashing import field_salt, hash_id, id_bytes
from schemas.numbers import Number
from schemas.raw_log import QUARANTINE_REASONS
from schemas.schema import Schema, Tables
from tests.fixtures import table_logs
from tests.fixtures.table_logs import SEED, TableRows

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
BY_ORDER = [("key", "ascending"), ("kind", "ascending"), ("order", "ascending")]


def taken(rows: TableRows, table: str) -> pa.Table:
    """The columns of a table as `jobs.raw_tables.columns` names and casts them."""
    found = rows.arrow(table)
    columns = {"key": found["context"]}
    fields = rows.schema.user_fields
    if table == "impressions":
        fields = rows.schema.impression_fields
        columns |= {"sample": found["impression"]}
        columns |= {"click": found["clicked"].cast("int64"), "conversion": found["bought"].cast("int64")}
    for field in fields:
        place = rows.schema.index[field.name]
        columns[f"ids_{place}"] = found[field.name]
        if field.weighted:
            kind = pa.list_(pa.float32()) if field.multi else pa.float32()
            columns[f"weights_{place}"] = found[f"w_{field.name}"].cast(kind)
    numbers = rows.schema.user_numbers
    if table == "impressions":
        numbers = rows.schema.impression_numbers
        columns |= {"weight": found["importance"].cast("float")} if rows.schema.has_weights else {}
        if names := table_logs.actions_of(rows.schema):
            either = reduce(pc.bit_wise_or, (found[name] for name in names))
            columns["action"] = either.cast("int64")
    columns |= {number.column: found[str(number.source)].cast("float") for number in numbers}
    return pa.table(columns)


def batches_of(columns: pa.Table, cuts: list[int]) -> Iterator[pa.RecordBatch]:
    """A table cut at some of its rows."""
    bounds = sorted({0, columns.num_rows, *(min(cut, columns.num_rows) for cut in cuts)})
    for begin, end in pairwise(bounds):
        yield from columns.slice(begin, end - begin).to_batches()


def packed(rows: TableRows, cuts: list[int], id_table: IdTable | None = None) -> pa.Table:
    batches = []
    for number, table in ((packed_rows.CONTEXTS, "contexts"), (packed_rows.IMPRESSIONS, "impressions")):
        columns = taken(rows, table)
        packer = Packer(rows.schema, number, SEED, {name: name for name in columns.column_names}, id_table)
        for batch in batches_of(columns, cuts):
            batches += packer.rows(batch)
    return pa.Table.from_batches(batches, packed_rows.arrow_schema()).sort_by(BY_ORDER).combine_chunks()


def unpacked(rows: pa.Table, schema: Schema) -> tuple[pa.Table, Unpacker]:
    unpacker = Unpacker(schema, max_impressions=3)
    found = [sample for batch in rows.to_batches() for sample in unpacker.add(batch)]
    found += unpacker.finish()
    return pa.Table.from_batches(found, samples.arrow_schema(schema)), unpacker


def rejected(unpacker: Unpacker) -> list[tuple[str, str]]:
    """Reason and text of what was set aside."""
    return [
        (QUARANTINE_REASONS[reason], text.decode())
        for lines in unpacker.take_rejected()
        for reason, text in zip(lines.reasons.tolist(), lines.texts or [], strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_value_is_what_plain_python_makes_of_it(data: st.DataObject) -> None:
    schema = data.draw(table_logs.schemas(NAMES))
    rows = data.draw(table_logs.table_rows(schema))
    cuts = data.draw(st.lists(st.integers(0, 16), max_size=3))
    table, unpacker = unpacked(packed(rows, cuts), schema)
    assert rejected(unpacker) == []
    assert table_logs.of_samples(table, schema) == table_logs.expected(rows, schema)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_numbers_and_their_texts_give_the_same_samples(data: st.DataObject) -> None:
    schema = data.draw(table_logs.schemas(NAMES))
    rows = data.draw(table_logs.table_rows(schema, text=False))
    texts = {field.name: True for field in schema.fields}
    if schema.user_id_type == "int64":
        texts[str(schema.user_id)] = False
    as_text = TableRows(
        schema, texts, *(_as_text(table, texts) for table in (rows.contexts, rows.impressions))
    )
    one, other = (unpacked(packed(each, []), schema)[0] for each in (rows, as_text))
    apart = {"user_id", *(number.column for number in schema.numbers)}  # NaN is not NaN
    names = [name for name in one.column_names if name not in apart]
    assert one.select(names).equals(other.select(names))


def _as_text(rows: list[dict[str, Any]], texts: dict[str, bool]) -> list[dict[str, Any]]:
    def text(name: str, value: Any) -> Any:
        if not texts.get(name) or value is None:
            return value
        return [str(i) for i in value] if isinstance(value, list) else str(value)

    return [{name: text(name, value) for name, value in row.items()} for row in rows]


TEXT = st.text() | st.from_regex(r"-?[0-9]{1,20}", fullmatch=True)


@given(st.lists(TEXT | st.none()), st.integers(0, 2**63 - 1))
def test_texts_are_hashed_as_the_contract_says(texts: list[str | None], seed: int) -> None:
    salt = field_salt("f", seed)
    sliced = pa.array(["before", *texts, "behind"], pa.string())[1 : len(texts) + 1]
    found = hash_ids(sliced, np.uint64(salt)).tolist()
    for text, hashed in zip(texts, found, strict=True):
        if text is not None:
            assert hashed == hash_id("f", text, seed) == xxhash.xxh64_intdigest(id_bytes(text), salt)


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(0, 2**63 - 1))
def test_numbers_are_hashed_as_the_contract_says(numbers: list[int], seed: int) -> None:
    salt = np.uint64(field_salt("f", seed))
    found = hash_kernel.hash_numbers(np.array(numbers, np.int64), salt).tolist()
    assert found == [hash_id("f", number, seed) for number in numbers]


SCHEMA = Schema(
    "tiny",
    (
        Field("customer", "user", 100),
        Field("seen", "user", 50, multi=True, weighted=True, weight_source="w_seen"),
        Field("product", "item", 80),
        Field("tags", "item", 20, multi=True),
        Field("match", "cross", 30, weighted=True, weight_source="w_match"),
    ),
    user_id="customer",
    item_id="product",
    tables=Tables("context", "impression", "clicked", "bought", "importance", ("carted",)),
    numbers=(Number("age", "user", source="n_age"), Number("price", "item", source="n_price")),
)
CONTEXT = {"context": "a", "customer": 5, "seen": [1, 2], "w_seen": [0.5, 1.5], "n_age": 5.0}
IMPRESSION = {
    "context": "a", "impression": 7, "clicked": True, "bought": 0, "carted": 1,
    "product": 3, "tags": [1], "match": 4, "w_match": 2.0, "n_price": 9.5, "importance": 1.0,
}  # fmt: skip


def rows_of(contexts: list[dict[str, Any]], impressions: list[dict[str, Any]]) -> TableRows:
    texts = {field.name: False for field in SCHEMA.fields}
    return TableRows(SCHEMA, texts, contexts, impressions)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"context": None}, "null_key"),
        ({"context": ""}, "null_key"),
        ({"context": "k" * (1 << 20) + "k"}, "id_too_long"),
        ({"impression": None}, "null_key"),
        ({"impression": -1}, "bad_number"),
        ({"clicked": None}, "bad_label"),
        ({"bought": 2}, "bad_label"),
        ({"clicked": False, "bought": 1}, "conversion_without_click"),
        ({"clicked": False}, "action_without_click"),
        ({"carted": 2}, "bad_label"),
        ({"carted": None}, "bad_label"),
        ({"tags": [1, None]}, "empty_id"),
        ({"w_match": None}, "bad_weight"),
        ({"w_match": -0.5}, "bad_weight"),
        ({"w_match": float("nan")}, "bad_weight"),
        ({"w_match": float("inf")}, "bad_weight"),
        ({"n_price": float("nan")}, "bad_number"),
        ({"n_price": float("-inf")}, "bad_number"),
        ({"n_price": 1e39}, "bad_number"),  # more than float32 can have
        ({"importance": None}, "bad_weight"),
        ({"importance": -1.0}, "bad_weight"),
        ({"importance": float("nan")}, "bad_weight"),
    ],
)
def test_a_broken_impression_is_set_aside_with_its_row(change: dict[str, Any], reason: str) -> None:
    good = {**IMPRESSION, "impression": 8}
    table, unpacker = unpacked(packed(rows_of([CONTEXT], [{**IMPRESSION, **change}, good]), []), SCHEMA)
    ((found, text),) = rejected(unpacker)
    assert found == reason
    assert '"ids_2": 3' in text  # the product's
    assert list(table_logs.of_samples(table, SCHEMA)) == [8]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"customer": -1}, "bad_number"),
        ({"w_seen": [1.0]}, "lengths_differ"),
        ({"w_seen": None}, "lengths_differ"),
        ({"w_seen": [1.0, None]}, "bad_weight"),
        ({"w_seen": [1.0, -1.0]}, "bad_weight"),
        ({"seen": [None, 2]}, "empty_id"),
        ({"n_age": float("inf")}, "bad_number"),
    ],
)
def test_a_broken_context_is_set_aside_and_its_impressions_too(change: dict[str, Any], reason: str) -> None:
    rows = rows_of([{**CONTEXT, **change}, {**CONTEXT, "context": "b"}], [IMPRESSION])
    table, unpacker = unpacked(packed(rows, []), SCHEMA)
    assert {found for found, _ in rejected(unpacker)} == {reason, "no_common_record"}
    assert table.num_rows == 0


def test_a_weight_of_a_missing_id_does_not_matter() -> None:
    rows = rows_of([CONTEXT], [{**IMPRESSION, "match": None, "w_match": None}])
    table, unpacker = unpacked(packed(rows, []), SCHEMA)
    assert rejected(unpacker) == []
    assert table["cross_match"].to_pylist() == [[0]]


def test_rows_that_are_there_twice() -> None:
    other = {**CONTEXT, "customer": 6}
    rows = rows_of([CONTEXT, CONTEXT, other, CONTEXT], [IMPRESSION, {**IMPRESSION, "product": 9}])
    table, unpacker = unpacked(packed(rows, [1, 3]), SCHEMA)
    assert rejected(unpacker) == [
        ("other_context_row", '{"context": "a"}'),
        ("duplicate_sample_id", '{"impression": 7}'),
    ]
    assert list(table_logs.of_samples(table, SCHEMA)) == [7]


def test_an_impression_without_a_context_is_told_by_its_key() -> None:
    rows = rows_of([CONTEXT], [{**IMPRESSION, "context": "nowhere"}])
    _, unpacker = unpacked(packed(rows, []), SCHEMA)
    assert rejected(unpacker) == [("no_common_record", '{"impression": 7}')]
