"""Ids of drawn tables counted and looked up, without Spark, against plain Python."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.id_tables.count_tables import RowCounter
from jobs.id_tables.token_counter import BROKEN_LINES, GOOD_LINES
from jobs.raw_logs import id_lookup
from schemas import ids
from schemas.hashing import POSITIVE, field_salt, xxh64
from schemas.schema import Schema
from storage.json_files import write_json
from tests.fixtures import table_logs
from tests.fixtures.table_logs import SEED, TableRows
from tests.jobs.raw_tables.test_pack import (
    CONTEXT,
    IMPRESSION,
    NAMES,
    SCHEMA,
    batches_of,
    packed,
    rejected,
    rows_of,
    taken,
    unpacked,
)

Counts = dict[str, Counter[bytes]]
Known = dict[tuple[str, int], int]
TABLES = ("contexts", "impressions")


def key_of(name: str, hashed: bytes) -> int:
    return xxh64(hashed, field_salt(name, SEED)) & POSITIVE


def counted(rows: TableRows, cuts: list[int], num_slots: int = 64) -> Counter[tuple[int, int]]:
    """Counts by (field index, id) of all batches together."""
    found: Counter[tuple[int, int]] = Counter()
    for table in TABLES:
        counter = RowCounter(rows.schema, SEED, num_slots)
        parts = [part for batch in batches_of(taken(rows, table), cuts) for part in counter.add(batch)]
        for row in (row for part in [*parts, *counter.finish()] for row in part.to_pylist()):
            found[row["field"], row["id"]] += row["count"]
    return found


def by_hand(counts: Counts, schema: Schema, good: int, broken: int) -> Counter[tuple[int, int]]:
    expected = Counter({(GOOD_LINES, 0): good, (BROKEN_LINES, 0): broken})
    for name, of_field in counts.items():
        expected.update({(schema.index[name], key_of(name, i)): n for i, n in of_field.items()})
    return expected


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([2, 4, 64]))
def test_ids_are_counted_as_plain_python_counts_them(data: st.DataObject, num_slots: int) -> None:
    schema = data.draw(table_logs.schemas(NAMES))
    rows = data.draw(table_logs.table_rows(schema))
    cuts = data.draw(st.lists(st.integers(0, 16), max_size=3))
    lines = len(rows.contexts) + len(rows.impressions)
    assert counted(rows, cuts, num_slots) == by_hand(table_logs.count_ids(rows), schema, lines, 0)


def test_rows_that_are_set_aside_do_not_count_and_those_without_the_other_side_do() -> None:
    bad_context, bad_impression = {**CONTEXT, "w_seen": [1.0]}, {**IMPRESSION, "clicked": None}
    lonely = {**IMPRESSION, "context": "nowhere", "impression": 8}
    rows = rows_of([CONTEXT, bad_context], [IMPRESSION, bad_impression, lonely])
    good = table_logs.count_ids(rows_of([CONTEXT], [IMPRESSION, lonely]))
    assert good["product"] == {(3).to_bytes(8, "little"): 2}
    assert counted(rows, []) == by_hand(good, SCHEMA, 3, 2)


def known_ids(counts: Counts, made: ids.IdSettings) -> Known:
    """The rows of an id table: (field, key) to bucket."""
    known: Known = {}
    for name in made.table_fields():
        kept = {key_of(name, i): n for i, n in counts[name].items() if n >= made.least_count(name)}
        if made.mode(name) == "vocabulary":
            ranked = sorted(kept, key=lambda key: (-kept[key], key))
            known |= {(name, key): 2 + rank for rank, key in enumerate(ranked)}
        else:
            known |= {(name, key): 2 + key % (made.buckets[name] - 2) for key in kept}
    return known


def loaded(known: Known, made: ids.IdSettings, schema: Schema) -> id_lookup.IdTable:
    """The same from a folder, as tasks load it."""
    with TemporaryDirectory() as folder:
        rows = [
            {"field": name, "id": key, "count": 1, "bucket": bucket} for (name, key), bucket in known.items()
        ]
        pq.write_table(pa.Table.from_pylist(rows, ids.arrow_schema()), f"{folder}/part-0.parquet")
        kept = Counter(name for name, _ in known)
        content = {
            "version": ids.VERSION, "digest": folder, "hash_seed": SEED, "buckets": made.buckets,
            "min_count": made.min_count, "vocabulary": list(made.vocabulary), "keys": made.keys,
            "fields": {name: {"kept_ids": kept[name]} for name in schema.index},
        }  # fmt: skip
        write_json(f"{folder}/{ids.MANIFEST_NAME}", content)
        (Path(folder) / "_SUCCESS").touch()
        table = id_lookup.load(ids.require_fit(folder, made), schema)
        assert table is not None
        return table


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_later_rows_get_the_buckets_of_known_ids_and_the_rare_one(data: st.DataObject) -> None:
    drawn = data.draw(table_logs.schemas(NAMES))
    schema = drawn.with_buckets({name: size + 2 for name, size in drawn.buckets.items()})
    names = st.sampled_from(list(schema.index))
    min_count = data.draw(st.dictionaries(names, st.integers(2, 3)))
    vocabulary = data.draw(st.lists(names, min_size=0 if min_count else 1, unique=True))
    made = ids.IdSettings(SEED, schema.buckets, min_count, tuple(vocabulary), "hash")
    known = known_ids(table_logs.count_ids(data.draw(table_logs.table_rows(schema))), made)
    later = data.draw(table_logs.table_rows(schema))
    table, unpacker = unpacked(packed(later, [], loaded(known, made, schema)), schema)
    assert rejected(unpacker) == []

    def bucket_of(name: str, i: int | str) -> int:
        return ids.bucket_of(name, i, made, known)

    assert table_logs.of_samples(table, schema) == table_logs.expected(later, schema, bucket_of)
