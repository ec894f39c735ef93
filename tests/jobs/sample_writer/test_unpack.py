"""Packed rows to sample rows: independent of how the rows were cut into batches, and nothing lost."""

import random
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.raw_logs import packed_rows as packed
from jobs.raw_logs import parse_kernel
from jobs.raw_logs.chunks import Chunk
from jobs.raw_logs.files import LogFile
from jobs.raw_logs.source import Parser
from jobs.sample_writer import unpack_kernel
from jobs.sample_writer.unpack import DUPLICATE_COMMON_RECORD, DUPLICATE_SAMPLE_ID, NO_COMMON_RECORD, Unpacker
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import RawLogs, random_logs

BUCKETS = {f.name: 50 for f in FIELDS}
SCHEMA = ALI_CCP.with_buckets(BUCKETS)
BY_ORDER = [("key", "ascending"), ("kind", "ascending"), ("order", "ascending")]


def packed_rows(logs: RawLogs) -> pa.Table:
    batches = []
    for number, lines in enumerate((logs.common, logs.skeleton)):
        text = "".join(line + "\n" for line in lines).encode()
        batches += Parser(LogFile(number, "", number == 0, 0), SCHEMA, 0).rows(Chunk(0, text))
    return pa.Table.from_batches(batches).sort_by(BY_ORDER).combine_chunks()


def rejected(unpacker: Unpacker) -> list[tuple[int, int, int]]:
    """(reason, file number, offset) of every line set aside so far."""
    return [
        (reason, order >> packed.OFFSET_BITS, order & packed.OFFSET_MASK)
        for lines in unpacker.take_rejected()
        for reason, order in zip(lines.reasons.tolist(), lines.orders.tolist(), strict=True)
    ]


def unpack(rows: pa.Table, cuts: list[int], max_impressions: int) -> tuple[pa.Table, Unpacker]:
    unpacker = Unpacker(SCHEMA, max_impressions)
    bounds = [0, *sorted(cuts), rows.num_rows]
    out = []
    for begin, end in pairwise(bounds):
        for batch in rows.slice(begin, end - begin).combine_chunks().to_batches():
            out += unpacker.add(batch)
    out += unpacker.finish()
    return pa.Table.from_batches(out).combine_chunks(), unpacker


@settings(max_examples=60)
@given(
    seed=st.integers(0, 5),
    max_impressions=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 60), max_size=12),
    missing=st.integers(0, 10),
    repeated=st.integers(0, 3),
)
def test_batches_make_no_difference_and_nothing_is_lost(seed, max_impressions, cuts, missing, repeated):
    logs = random_logs(seed, num_contexts=20)
    rng = random.Random(seed)
    removed = [logs.common.pop() for _ in range(missing)]
    again = rng.sample(logs.common, repeated)
    logs.common += again
    rows = packed_rows(logs)
    table, unpacker = unpack(rows, [min(cut, rows.num_rows) for cut in cuts], max_impressions)
    whole, _ = unpack(rows, [], max_impressions)
    table.validate(full=True)
    assert table.equals(whole)

    without = {line.split(",")[0] for line in removed}
    orphans = [line for line in logs.skeleton if line.split(",")[3] in without]
    good = {int(line.split(",")[0]): line.split(",")[3] for line in logs.skeleton if line not in orphans}
    found = [i for ids in table["sample_id"].to_pylist() for i in ids]
    assert sorted(found) == sorted(good)
    reasons = [reason for reason, _, _ in rejected(unpacker)]
    assert reasons.count(NO_COMMON_RECORD) == len(orphans)
    assert reasons.count(DUPLICATE_COMMON_RECORD) == repeated
    assert unpacker.num_contexts == len(set(good.values()))
    assert max(map(len, table["sample_id"].to_pylist())) <= max_impressions


def test_a_context_fills_its_rows_before_it_begins_another():
    logs = random_logs(1, num_contexts=1, most_impressions=0)
    context = logs.common[0].split(",")[0]
    logs.skeleton = [f"{i},0,0,{context},0," for i in range(1, 24)]
    rows = packed_rows(logs)
    table, _ = unpack(rows, [1], max_impressions=10)
    assert [len(ids) for ids in table["sample_id"].to_pylist()] == [10, 10, 3]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 5),
    max_impressions=st.integers(1, 6),
    cuts=st.lists(st.integers(0, 60), max_size=12),
    again=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=12),
)
def test_a_second_impression_with_a_sample_id_of_its_context_is_set_aside(seed, max_impressions, cuts, again):
    logs = random_logs(seed, num_contexts=8)
    first = list(logs.skeleton)
    for which, where in again:
        logs.skeleton.insert(where % (len(logs.skeleton) + 1), first[which % len(first)])
    rows = packed_rows(logs)
    table, unpacker = unpack(rows, [min(cut, rows.num_rows) for cut in cuts], max_impressions)
    table.validate(full=True)
    kept = list(dict.fromkeys(logs.skeleton))
    found = [i for ids in table["sample_id"].to_pylist() for i in ids]
    assert sorted(found) == sorted(int(line.split(",")[0]) for line in kept)
    by_context = pa.table({"context": table["context_id"], "ids": table["sample_id"]}).to_pylist()
    for context in {row["context"] for row in by_context}:
        of_context = [int(line.split(",")[0]) for line in kept if line.split(",")[3] == context]
        assert [i for row in by_context if row["context"] == context for i in row["ids"]] == of_context
    text = "".join(line + "\n" for line in logs.skeleton)
    lines = rejected(unpacker)
    assert {(reason, number) for reason, number, _ in lines} == {(DUPLICATE_SAMPLE_ID, 1)}
    assert sorted(text[offset:].split("\n")[0] for _, _, offset in lines) == sorted(
        first[which % len(first)] for which, _ in again
    )


def test_a_line_without_its_common_record_says_where_it_is():
    logs = random_logs(2, num_contexts=3)
    logs.common.clear()
    unpacker = Unpacker(SCHEMA, 10)
    for batch in packed_rows(RawLogs(logs.skeleton, ["0" * 16 + ",0,"])).to_batches():
        assert list(unpacker.add(batch)) == []
    assert list(unpacker.finish()) == []
    text = "".join(line + "\n" for line in logs.skeleton)
    lines = rejected(unpacker)
    assert {text[offset:].split("\n")[0] for _, _, offset in lines} == set(logs.skeleton)
    assert {number for _, number, _ in lines} == {1}


def test_user_id_is_null_where_field_101_is_missing():
    context = "0" * 15
    logs = RawLogs(
        skeleton=[f"1,1,0,{context}1,0,", f"2,0,0,{context}2,0,"],
        common=[f"{context}1,1,101\x02123456\x031.0", f"{context}2,0,"],
    )
    table, _ = unpack(packed_rows(logs), [], 10)
    assert table["user_id"].to_pylist() == [123456, None]
    assert table["user_101"].to_pylist()[1] == 0
    assert pytest.approx(table["click"].to_pylist()[0]) == [1]


def test_each_kernel_is_compiled_for_one_kind_of_arguments():
    """Another kind would be compiled anew, for seconds, in every worker of a job."""
    rows = packed_rows(random_logs(4, num_contexts=30))
    unpack(rows, [], 10)
    unpack(rows, [5, 6, 7, 20], 3)
    for kernel in (unpack_kernel.plan_rows, unpack_kernel.count_values, unpack_kernel.fill_columns):
        assert len(kernel.signatures) == 1
    assert len(parse_kernel.parse_lines.signatures) == 1


def test_the_lists_of_users_are_sorted_up_and_down_in_turn():
    table, _ = unpack(packed_rows(random_logs(6, num_contexts=40)), [3, 20], max_impressions=3)
    lists = list(
        zip(*(table[name].to_pylist() for name in ("user_110_14", "user_110_14_weight")), strict=True)
    )
    assert max(len(ids) for ids, _ in lists) > 2
    for row, (ids, _) in enumerate(lists):
        assert ids == sorted(ids, reverse=row % 2 == 1)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**31 - 1) | st.integers(0, 5), st.integers(0, 2**31 - 1)), max_size=60
    ),
    st.booleans(),
)
def test_a_list_keeps_its_pairs_when_it_is_sorted(pairs, descending):
    ids, bits = (np.array([pair[i] for pair in pairs], np.int32) for i in (0, 1))
    unpack_kernel.sort_by_id(ids, bits, np.empty_like(ids), np.empty_like(bits), descending)
    expected = sorted(pairs, key=lambda pair: pair[0])
    assert list(zip(ids.tolist(), bits.tolist(), strict=True)) == (expected[::-1] if descending else expected)
