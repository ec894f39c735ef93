"""Permuting, cutting and gathering against plain Python lists."""

import gc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esmm.data.assemble import Gatherer, Ranges, cut, no_ranges, permuted, rebatch
from esmm.data.gather_kernel import Side, gather_bags, gather_labels, gather_numbers
from esmm.data.row_group import RowLayout, Rows, from_table, missing_rows
from tests.fixtures.sample_files import TEST_SCHEMA, write_samples

Bag = list[int]


def counted(lengths: list[int]) -> Any:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int32)


# ---- The kernels -----------------------------------------------------------------------------------


class Part:
    """Fields of owners as the kernels want them; the weight of an id is a hundredth of it."""

    def __init__(self, bags: list[list[Bag]], kinds: list[str]) -> None:
        """bags[field][owner]. kinds: of each field, 'single' (all weights 1), 'weighted', 'bags'."""
        self.arrays, self.addresses = [], []
        for owners, kind in zip(bags, kinds, strict=True):
            ids = np.array([i for bag in owners for i in bag], np.int32)
            weights = (ids / 100).astype(np.float32)
            bounds = counted([len(bag) for bag in owners])
            self.arrays.append((ids, weights, bounds))
            self.addresses.append(
                (
                    ids.ctypes.data,
                    weights.ctypes.data if kind != "single" else 0,
                    bounds.ctypes.data if kind == "bags" else 0,
                )
            )


@st.composite
def parts_and_ranges(draw: st.DrawFn) -> tuple[list[str], list[list[list[Bag]]], list[tuple[int, int, int]]]:
    """Kinds of fields, bags[part][field][owner], and (part, first, count) of owners."""
    kinds = draw(st.lists(st.sampled_from(["single", "weighted", "bags"]), min_size=1, max_size=4))
    parts, ranges = [], []
    for part in range(draw(st.integers(1, 3))):
        owners = draw(st.integers(1, 6))
        sizes = {"single": (1, 1), "weighted": (1, 1), "bags": (0, 4)}
        bags = [
            draw(
                st.lists(
                    st.lists(st.integers(0, 1000), min_size=sizes[kind][0], max_size=sizes[kind][1]),
                    min_size=owners,
                    max_size=owners,
                )
            )
            for kind in kinds
        ]
        parts.append(bags)
        for first in draw(st.lists(st.integers(0, owners), max_size=4)):
            ranges.append((part, first, draw(st.integers(0, owners - first))))
    return kinds, parts, draw(st.permutations(ranges))


Case = tuple[list[str], list[list[list[Bag]]], list[tuple[int, int, int]]]


def to_side(case: Case, parts: list[Part]) -> Side:
    kinds, _, ranges = case
    return Side(
        np.array([part.addresses for part in parts]),
        np.arange(len(kinds), dtype=np.int32) * 5000,
        np.zeros(len(kinds), bool),
        *(np.array([range_[i] for range_ in ranges], np.int64) for i in range(3)),
    )


def bags_of(case: Case) -> list[list[tuple[int, float]]]:
    kinds, bags, ranges = case
    return [
        [(5000 * f + i, 1.0 if kind == "single" else np.float32(i / 100)) for i in bags[part][f][owner]]
        for part, first, count in ranges
        for owner in range(first, first + count)
        for f, kind in enumerate(kinds)
    ]


@given(parts_and_ranges(), parts_and_ranges())
def test_gathered_bags(user: Case, impression: Case) -> None:
    parts = [[Part(fields, kinds) for fields in bags] for kinds, bags, _ in (user, impression)]
    ids, weights, offsets = gather_bags(to_side(user, parts[0]), to_side(impression, parts[1]))
    expected = bags_of(user) + bags_of(impression)
    found = list(zip(ids.tolist(), weights, strict=True))
    assert [found[a:b] for a, b in pairwise(offsets)] == expected
    assert offsets[0] == 0 and offsets[-1] == len(ids)


@given(st.lists(st.lists(st.floats(0, 5, width=32), max_size=5), max_size=6))
@example([[1e-45], [1e-45, 3.0], [5e-39, 1e-40]])
def test_normalised_bags_sum_to_one(bags: list[list[float]]) -> None:
    given = np.array([w for bag in bags for w in bag], np.float32)
    ids = np.arange(len(given), dtype=np.int32)
    bounds = counted([len(bag) for bag in bags])
    places = np.array([[[array.ctypes.data for array in (ids, given, bounds)]]])
    zero, all_bags = np.zeros(1, np.int64), np.array([len(bags)])
    field = Side(places, np.zeros(1, np.int32), np.ones(1, bool), zero, zero, all_bags)
    nothing = field._replace(length=zero)
    _, weights, _ = gather_bags(nothing, field)
    expected = [w / sum(bag) if sum(bag) > 0 else 0.0 for bag in bags for w in bag]
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-30)


def test_gathered_labels() -> None:
    parts = [np.array([0, 1, 1], np.int8), np.array([1, 0], np.int8)]
    places = np.array([part.ctypes.data for part in parts])
    found = gather_labels(places, np.array([1, 0, 0]), np.array([0, 1, 0]), np.array([2, 2, 1]))
    assert found.dtype == np.float32
    assert found.tolist() == [1, 0, 1, 1, 0]


# ---- Permuting and cutting -------------------------------------------------------------------------


def make_parts(counts: list[list[int]]) -> list[Rows]:
    """Contexts of so many impressions and nothing in them: no address is ever looked at."""
    nowhere = np.zeros((23, 3), np.int64)
    return [Rows(counted(group), nowhere, nowhere[0, :2], nowhere[0, :0], owned=()) for group in counts]


def content(ranges: Ranges, parts: list[Rows]) -> list[tuple[int, int, int]]:
    """(part, context, impression) in the order of their use."""
    number = {id(rows): i for i, rows in enumerate(parts)}
    return [
        (number[id(ranges.parts[part])], context, impression)
        for part, context, first, count in zip(
            ranges.part.tolist(),
            ranges.context.tolist(),
            ranges.first.tolist(),
            ranges.count.tolist(),
            strict=True,
        )
        for impression in range(first, first + count)
    ]


def by_context(counts: list[list[int]]) -> list[list[tuple[int, int, int]]]:
    """What `content` shows, context by context in the order of the files."""
    return [
        [(part, context, sum(group[:context]) + i) for i in range(count)]
        for part, group in enumerate(counts)
        for context, count in enumerate(group)
    ]


counts_of_groups = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=6)


@given(counts_of_groups, st.booleans(), st.integers(0, 30))
def test_permuted_without_the_first(counts: list[list[int]], shuffle: bool, skip: int) -> None:
    contexts, parts = by_context(counts), make_parts(counts)
    order = np.arange(len(contexts))
    if shuffle:
        np.random.default_rng(1).shuffle(order)
    whole = [impression for i in order for impression in contexts[i]]
    rng = np.random.default_rng(1) if shuffle else None
    assert content(permuted(parts, rng, skip), parts) == whole[skip:]


@given(counts_of_groups, st.integers(1, 40))
def test_cut_keeps_every_impression_in_order(counts: list[list[int]], batch_size: int) -> None:
    parts = make_parts(counts)
    ranges = permuted(parts, None)
    pieces = list(cut(ranges, batch_size))
    assert [item for piece in pieces for item in content(piece, parts)] == content(ranges, parts)
    assert all((piece.count > 0).all() for piece in pieces)
    sizes = [piece.num_impressions for piece in pieces]
    assert all(size == batch_size for size in sizes[:-1]) and all(0 < size <= batch_size for size in sizes)


@given(st.lists(counts_of_groups, max_size=4), st.integers(1, 12), st.integers(0, 6))
def test_rebatch_keeps_the_order_of_the_stream(
    windows: list[list[list[int]]], batch_size: int, skip: int
) -> None:
    made = [make_parts(counts) for counts in windows]
    parts = [rows for window in made for rows in window]
    stream = [permuted(window, np.random.default_rng(3), skip) for window in made]
    expected = [item for ranges in stream for item in content(ranges, parts)]
    batches = list(rebatch(stream, batch_size))
    assert [item for batch in batches for item in content(batch, parts)] == expected
    sizes = [batch.num_impressions for batch in batches]
    assert all(size == batch_size for size in sizes[:-1]) and all(0 < size <= batch_size for size in sizes)


def test_what_waits_for_the_next_window_holds_no_idle_parts() -> None:
    """Or the row groups of all windows would stay in memory."""
    windows = [make_parts([[3] * 4] * 5) for _ in range(20)]
    stream = (permuted(window, np.random.default_rng(0)) for window in windows)
    assert max(len(batch.parts) for batch in rebatch(stream, 7)) <= 5 + 3


# ---- Batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize("ranges", [no_ranges(), permuted([missing_rows(3, 10)], None)])
def test_a_batch_without_impressions(ranges: Ranges, with_keys: bool) -> None:
    batch = Gatherer(TEST_SCHEMA, with_keys, pin_memory=False)(ranges)
    assert (batch.num_impressions, batch.num_contexts) == (0, 0)
    for bags in (batch.user, batch.impression):
        assert len(bags.ids) == len(bags.weights) == 0
        assert bags.offsets.tolist() == [0]
    assert (batch.keys is not None) == with_keys
    if batch.keys is not None:
        assert batch.keys.column_names == ["sample_id", "context_id", "user_id", "click", "conversion"]
        assert batch.keys.num_rows == 0


def test_missing_rows_are_as_many_as_they_should_be() -> None:
    rows = missing_rows(4, 10)
    assert (rows.num_contexts, rows.num_impressions) == (4, 10)
    assert (np.diff(rows.starts) >= 2).all()


def test_columns_in_several_chunks_are_held(tmp_path: Path) -> None:
    """Joined, they are new arrays: the table alone would not keep what the addresses point to."""
    write_samples(tmp_path / "s", num_rows=8, num_files=2)
    layout = RowLayout.of(TEST_SCHEMA, with_keys=False)
    names = layout.column_names
    tables = [pq.read_table(path, columns=names) for path in sorted((tmp_path / "s").glob("*.parquet"))]
    gc.collect()
    before = pa.total_allocated_bytes()
    joined = pa.concat_tables(tables).combine_chunks()
    size = pa.total_allocated_bytes() - before
    expected = from_table(joined, layout)
    found = from_table(pa.concat_tables(tables), layout)
    assert pa.total_allocated_bytes() - before >= 2 * size
    gather = Gatherer(TEST_SCHEMA, with_keys=False, pin_memory=False)
    batches = [gather(permuted([rows], None)) for rows in (found, expected)]
    assert batches[0].impression.ids.equal(batches[1].impression.ids)
    assert batches[0].click.equal(batches[1].click)


def test_numbers_of_several_parts_stand_side_by_side() -> None:
    columns = [np.array(values, np.float32) for values in ([1, 2, 3], [10, 20, 30], [4, np.nan], [40, 50])]
    places = np.array([column.ctypes.data for column in columns], np.int64).reshape(2, 2)
    found = gather_numbers(places, np.array([1, 0, 0]), np.array([0, 1, 0]), np.array([2, 2, 1]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[4, 40], [np.nan, 50], [2, 20], [3, 30], [1, 10]])
