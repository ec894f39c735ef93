"""Start values and dealing of the table's rows."""

import pytest
import torch

from esmm.checkpoints.loading import rows_in_common
from esmm.embedding.sharded_table import ShardedEmbedding, initial_rows, num_local_rows
from esmm.workers.world import World
from tests.fixtures.ali_ccp import USER_FIELDS
from tests.fixtures.plain_batches import PlainBatch, to_batch
from tests.fixtures.workers import ONE_WORKER

MASK = (1 << 64) - 1


def _splitmix64(state: int) -> int:
    """The output function of SplitMix64 on Python's unbounded integers."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_start_values_equal_an_integer_calculation() -> None:
    rows = torch.tensor([0, 1, 2, 12345, 17_000_000])
    found = initial_rows(rows, dim=3, seed=42, bound=0.5)
    for row, values in zip(rows.tolist(), found.tolist(), strict=True):
        for column, value in enumerate(values):
            bits = _splitmix64((row * 3 + column) * 0x9E3779B97F4A7C15 + _splitmix64(42))
            assert value == pytest.approx((bits >> 40) / (1 << 24) - 0.5, abs=1e-7)


def test_start_values_are_uniform_and_differ_by_seed() -> None:
    values = initial_rows(torch.arange(20_000), dim=4, seed=1, bound=0.1)
    assert values.min() >= -0.1 and values.max() < 0.1
    assert values.mean().abs() < 1e-3
    assert values.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.02)
    assert (values != initial_rows(torch.arange(20_000), dim=4, seed=2, bound=0.1)).float().mean() > 0.99


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_start_values_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    whole = ShardedEmbedding(17, 4, ONE_WORKER)
    whole.initialise(7, 0.05)
    for rank in range(workers):
        shard = ShardedEmbedding(17, 4, World(workers, rank, 0, 1, torch.device("cpu")))
        shard.initialise(7, 0.05)
        torch.testing.assert_close(shard.table, whole.table[rank::workers], rtol=0, atol=0)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_every_row_has_one_owner(num_rows: int, workers: int) -> None:
    counts = [num_local_rows(num_rows, rank, workers) for rank in range(workers)]
    assert counts == [len(range(rank, num_rows, workers)) for rank in range(workers)]


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (2, 3), (3, 2), (4, 1), (5, 5)])
def test_rows_find_their_way_from_any_shards_to_any_workers(shards: int, workers: int) -> None:
    num_rows = 23
    found: dict[int, int] = {}
    for shard in range(shards):
        length = num_local_rows(num_rows, shard, shards)
        for start in range(0, length, 4):  # as read in chunks
            for rank in range(workers):
                stop = min(start + 4, length)
                source, local = rows_in_common(shard, shards, start, stop, rank, workers)
                for j, k in zip(source.tolist(), local.tolist(), strict=True):
                    assert k * workers + rank not in found, "no row is written twice"
                    found[k * workers + rank] = shard + shards * (start + j)
    assert found == {row: row for row in range(num_rows)}


def test_lookup_hands_out_sums_of_rows_and_takes_their_gradients() -> None:
    embedding = ShardedEmbedding(10, 2, ONE_WORKER)
    embedding.initialise(0, 1.0)
    bags = [[(7, 1.0), (2, 0.5)], [(7, 2.0)]]
    plain = PlainBatch([[*bags, *[[] for _ in USER_FIELDS[2:]]]], [])
    lookup = embedding.lookup(to_batch(plain, 10).request)
    torch.testing.assert_close(lookup.pooled[0], embedding.table[7] + 0.5 * embedding.table[2])
    torch.testing.assert_close(lookup.pooled[1], 2 * embedding.table[7])
    assert not lookup.pooled[2:].any()
    gradient = embedding.start_gradients(lookup, torch.ones(len(USER_FIELDS), 2)).wait()
    assert lookup.owned.rows.tolist() == [2, 7]
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.5], [3.0, 3.0]]))


def test_shrinking_all_rows_is_seen_by_lookups_and_never_leaves_the_range_of_floats() -> None:
    embedding = ShardedEmbedding(10, 2, ONE_WORKER)
    embedding.initialise(0, 1.0)
    before = embedding.table.clone()
    plain = PlainBatch([[[(7, 1.0)], *[[] for _ in USER_FIELDS[1:]]]], [])
    for step in range(1, 200):
        embedding.shrink(0.9)
        lookup = embedding.lookup(to_batch(plain, 10).request)
        torch.testing.assert_close(lookup.pooled[0], before[7] * 0.9**step, rtol=1e-4, atol=1e-12)
        assert embedding.scale > 2**-11
