"""Range copies, merging and cutting against plain Python lists."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esmm.assemble import concat, cut, gather_ranges, permuted, rebatch, take, to_batch
from esmm.rows import FlatBags, Rows, empty_rows, normalise_bags
from schemas.fields import IMPRESSION_FIELDS, USER_FIELDS

Bag = list[int]
NUM_USER, NUM_IMPRESSION = len(USER_FIELDS), len(IMPRESSION_FIELDS)


def flatten(bags: list[list[Bag]]) -> FlatBags:
    """bags[field][owner] as flat arrays; weight of an id is a hundredth of it."""
    all_bags = [bag for field in bags for bag in field]
    ids = np.array([i for bag in all_bags for i in bag], np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(bag) for bag in all_bags], dtype=np.int64))).astype(
        np.int64
    )
    return FlatBags(ids, (ids / 100).astype(np.float32), offsets)


def unflatten(flat: FlatBags, num_fields: int) -> list[list[Bag]]:
    """The reverse of `flatten`; checks the weights on the way."""
    np.testing.assert_array_equal(flat.weights, (flat.ids / 100).astype(np.float32))
    num_owners = (len(flat.offsets) - 1) // num_fields
    bags = [flat.ids[a:b].tolist() for a, b in zip(flat.offsets[:-1], flat.offsets[1:], strict=True)]
    assert flat.offsets[0] == 0 and flat.offsets[-1] == len(flat.ids)
    return [bags[f * num_owners : (f + 1) * num_owners] for f in range(num_fields)]


@st.composite
def jagged(draw: st.DrawFn) -> tuple[list[list[Bag]], list[tuple[int, int]]]:
    """bags[field][owner], and (start, count) ranges of owners."""
    num_fields, num_owners = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    bag = st.lists(st.integers(0, 1000), max_size=4)
    owners = st.lists(bag, min_size=num_owners, max_size=num_owners)
    bags = draw(st.lists(owners, min_size=num_fields, max_size=num_fields))
    starts = draw(st.lists(st.integers(0, num_owners), max_size=6))
    return bags, [(start, draw(st.integers(0, num_owners - start))) for start in starts]


@given(jagged())
def test_gather_ranges(case: tuple[list[list[Bag]], list[tuple[int, int]]]) -> None:
    bags, ranges = case
    flat = flatten(bags)
    starts = np.array([start for start, _ in ranges], np.int64)
    counts = np.array([count for _, count in ranges], np.int64)
    found = FlatBags(*gather_ranges(flat.ids, flat.weights, flat.offsets, len(bags), starts, counts))
    expected = [
        [owners[i] for start, count in ranges for i in range(start, start + count)] for owners in bags
    ]
    assert unflatten(found, len(bags)) == expected


@given(st.lists(st.lists(st.floats(0, 5, width=32), max_size=5), max_size=6))
def test_normalised_bags_sum_to_one(bags: list[list[float]]) -> None:
    weights = np.array([w for bag in bags for w in bag], np.float32)
    offsets = np.concatenate(([0], np.cumsum([len(bag) for bag in bags], dtype=np.int64))).astype(np.int64)
    normalise_bags(weights, offsets)
    expected = [w / sum(bag) if sum(bag) > 0 else 0.0 for bag in bags for w in bag]
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-30)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=15), st.integers(1, 40))
def test_cut_keeps_every_impression_in_order(num_impressions: list[int], batch_size: int) -> None:
    seen: list[tuple[int, int]] = []
    sizes = []
    for span, begin, count in cut(np.array(num_impressions), batch_size):
        assert (count > 0).all()
        rows = range(len(num_impressions))[span]
        batch = [(r, b + k) for r, b, c in zip(rows, begin, count, strict=True) for k in range(c)]
        sizes.append(len(batch))
        seen += batch
    assert seen == [(r, k) for r, n in enumerate(num_impressions) for k in range(n)]
    assert all(size == batch_size for size in sizes[:-1]) and 0 < sizes[-1] <= batch_size


def make_rows(counts: list[int], first_id: int) -> Rows:
    """Contexts of `counts` impressions; impression i has sample_id, and ids in all fields, first_id + i."""
    total = sum(counts)
    ids = list(range(first_id, first_id + total))
    contexts = [[[first_id, r] for r in range(len(counts))]] * NUM_USER
    impressions = [[[i] * (f % 3) for i in ids] for f in range(NUM_IMPRESSION)]
    return Rows(
        starts=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64),
        click=np.array(ids, np.float32) % 2,
        conversion=np.array(ids, np.float32) % 3,
        user=flatten(contexts),
        impression=flatten(impressions),
    )


def content(rows: Rows) -> list[Any]:
    """Each impression with its context's bags: what must survive every rearrangement."""
    user, impression = unflatten(rows.user, NUM_USER), unflatten(rows.impression, NUM_IMPRESSION)
    owners = np.repeat(np.arange(rows.num_contexts), np.diff(rows.starts))
    return [
        (
            float(rows.click[i]),
            float(rows.conversion[i]),
            [field[owners[i]] for field in user],
            [field[i] for field in impression],
        )
        for i in range(rows.num_impressions)
    ]


def test_concat_is_end_to_end() -> None:
    parts = [make_rows([2, 1], 10), make_rows([3], 20), make_rows([0, 1], 30)]
    assert content(concat(parts)) == content(parts[0]) + content(parts[1]) + content(parts[2])
    assert concat(parts).num_contexts == 5


def test_take_cuts_inside_a_context() -> None:
    rows = make_rows([3, 4, 2], 10)
    taken = take(rows, np.array([2, 1]), np.array([0, 1]), np.array([2, 3]))
    everything = content(rows)
    assert content(taken) == everything[7:9] + everything[4:7]
    assert taken.starts.tolist() == [0, 2, 5]


counts_of_groups = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=6)


def make_groups(counts: list[list[int]]) -> list[Rows]:
    return [make_rows(group, 100 * number) for number, group in enumerate(counts)]


@given(counts_of_groups, st.booleans(), st.integers(0, 30))
def test_permuted_without_the_first(counts: list[list[int]], shuffle: bool, skip: int) -> None:
    def rng() -> np.random.Generator | None:
        return np.random.default_rng(1) if shuffle else None

    parts = make_groups(counts)
    contexts = [part for group in parts for part in by_context(group)]
    whole = [item for i in order_of(len(contexts), rng()) for item in contexts[i]]
    assert content(permuted(parts, rng(), skip).take()) == whole[skip:]


def by_context(rows: Rows) -> list[list[Any]]:
    everything = content(rows)
    return [everything[a:b] for a, b in zip(rows.starts[:-1], rows.starts[1:], strict=True)]


def order_of(length: int, rng: np.random.Generator | None) -> list[int]:
    order = np.arange(length)
    if rng:
        rng.shuffle(order)
    return order.tolist()


@given(st.lists(counts_of_groups, max_size=4), st.integers(1, 12), st.integers(0, 6))
def test_rebatch_keeps_the_order_of_the_stream(
    windows: list[list[list[int]]], batch_size: int, skip: int
) -> None:
    stream = [permuted(make_groups(counts), np.random.default_rng(3), skip) for counts in windows]
    batches = list(rebatch(stream, batch_size))
    expected = [item for ranges in stream for item in content(ranges.take())]
    assert [item for batch in batches for item in content(batch)] == expected
    sizes = [batch.num_impressions for batch in batches]
    assert all(size == batch_size for size in sizes[:-1]) and all(0 < size <= batch_size for size in sizes)


@pytest.mark.parametrize("with_keys", [False, True])
def test_empty_batch(with_keys: bool) -> None:
    batch = to_batch(empty_rows(with_keys))
    assert (batch.num_impressions, batch.num_contexts) == (0, 0)
    assert batch.user.offsets.tolist() == [0] and batch.impression.offsets.tolist() == [0]
    assert batch.user.ids.dtype == batch.context_index.dtype == batch.user.offsets.dtype
    if with_keys:
        assert batch.keys is not None and batch.keys.num_rows == 0
