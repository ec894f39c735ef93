"""What a task counts: independent of how files come in batches, and strict about what it reads."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.errors import InputError
from jobs.profiling import tasks
from jobs.profiling.tally import BUCKET, LENGTH, NO_FIELD, OURS, RANKING, SIZE, THEIRS, Tally
from jobs.profiling.tasks import Work
from jobs.sample_files import read_batches
from tests.fixtures.ali_ccp import ALI_CCP
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows, write_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "set"
    write_samples(path, num_rows=60, seed=4, num_files=1)
    return path


@pytest.fixture(scope="module")
def split_contexts(folder: Path) -> pa.Table:
    """The samples with some contexts in several rows: neighbours get the context of the row before."""
    rows = read_rows(folder)
    shared = [name for name in rows[0] if name.startswith("user_") or name == "context_id"]
    for number, row in enumerate(rows):
        if number % 5 in (2, 3):
            row.update({name: rows[number - 1][name] for name in shared})
    return pa.Table.from_pylist(rows, schema=pq.read_schema(folder / "part-00000.parquet"))


def counts_of(batches: list[pa.RecordBatch]) -> Counter:
    counts: Counter = Counter()
    for batch in batches:
        for row in batch.to_pylist():
            key = (row["part"], row["kind"], row["field"])
            counts[*key, row["value"]] += row["count"]
            for place, tokens in enumerate(np.frombuffer(row["tokens"] or b"", np.int64)):
                counts[*key, row["value"] + place] += int(tokens)
    return +counts


def tallied(table: pa.Table, cuts: list[int]) -> Counter:
    tally = Tally(TEST_SCHEMA)
    for begin, end in zip([0, *cuts], [*cuts, table.num_rows], strict=True):
        for batch in table.slice(begin, end - begin).combine_chunks().to_batches():
            tally.add(batch, "a file")
    tally.end_file()
    return counts_of(list(tally.rows(OURS)))


@given(cuts=st.lists(st.integers(0, 60), max_size=8).map(sorted))
@settings(max_examples=30)
def test_counts_do_not_depend_on_the_batches(split_contexts: pa.Table, cuts: list[int]) -> None:
    assert tallied(split_contexts, cuts) == tallied(split_contexts, [])


def test_context_in_several_rows_counts_once(split_contexts: pa.Table) -> None:
    rows = split_contexts.to_pylist()
    counts = tallied(split_contexts, [7, 33])
    sizes: Counter = Counter()
    for row in rows:
        sizes[row["context_id"]] += len(row["click"])
    expected = Counter(sizes.values())
    assert {key[3]: n for key, n in counts.items() if key[1] == SIZE} == expected
    assert {key[2] for key in counts if key[1] == SIZE} == {NO_FIELD}
    first = {row["context_id"]: row for row in reversed(rows)}
    position = TEST_SCHEMA.index["110_14"]
    lengths = Counter(len(row["user_110_14"]) for row in first.values())
    assert {key[3]: n for key, n in counts.items() if key[1:3] == (LENGTH, position)} == lengths


def test_missing_is_never_a_bucket(split_contexts: pa.Table) -> None:
    counts = tallied(split_contexts, [])
    assert all(key[3] > 0 for key in counts if key[1] == BUCKET)
    position = TEST_SCHEMA.index["205"]
    values = [i for row in split_contexts.to_pylist() for i in row["item_205"]]
    assert 0 in values
    assert counts[OURS, LENGTH, position, 0] == values.count(0)


def test_other_set_is_halved_by_context(folder: Path) -> None:
    work = [Work(False, (str(folder / "part-00000.parquet"),))]
    count = tasks.counter_of(work, TEST_SCHEMA)
    counts = counts_of(list(count(iter([pa.record_batch([pa.array([0])], ["id"])]))))
    ranking = [row for row in read_rows(folder) if tasks.half_of(row["context_id"]) == RANKING]
    assert {key[0] for key in counts} == {RANKING, THEIRS}
    assert sum(n for key, n in counts.items() if key[:2] == (RANKING, SIZE)) == len(ranking) > 0
    position = TEST_SCHEMA.index["206"]
    expected = Counter(i for row in ranking for i in row["item_206"] if i)
    assert {key[3]: n for key, n in counts.items() if key[:3] == (RANKING, BUCKET, position)} == expected


def test_bucket_out_of_range_names_file_and_column(folder: Path) -> None:
    path = str(folder / "part-00000.parquet")
    small = ALI_CCP.with_buckets(dict.fromkeys(ALI_CCP.index, 3))
    count = tasks.counter_of([Work(True, (path,))], small)
    with pytest.raises(InputError, match=r"part-00000.*user_101: expected buckets 0 to 2, found \d+ to \d+"):
        list(count(iter([pa.record_batch([pa.array([0])], ["id"])])))


def test_files_that_hold_no_samples_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.parquet: expected this file"):
        list(read_batches(str(tmp_path / "gone.parquet"), ["click"]))
    broken = tmp_path / "broken.parquet"
    broken.write_text(json.dumps({"not": "Parquet"}))
    with pytest.raises(InputError, match=r"broken.parquet: expected a file of samples"):
        list(read_batches(str(broken), ["click"]))
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), other)
    with pytest.raises(InputError, match=r"other.parquet: expected a file of samples.*click"):
        list(read_batches(str(other), ["click"]))
