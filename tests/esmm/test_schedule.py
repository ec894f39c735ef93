"""Who reads what and how many steps there are: arithmetic, checked against counting by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esmm.schedule import RowGroup, Schedule, make_schedule, row_groups, shard
from schemas import manifest
from schemas.manifest import FileEntry
from tests.esmm.sample_files import TEST_BUCKETS

group_lists = st.lists(
    st.builds(RowGroup, st.just("part"), st.integers(0, 99), st.integers(0, 64), st.integers(0, 500)),
    max_size=30,
)


def test_row_groups_follow_file_names_then_positions() -> None:
    files = [
        FileEntry(name="part-00001.parquet", bytes=1, rows=[3], impressions=[30]),
        FileEntry(name="part-00000.parquet", bytes=1, rows=[1, 2], impressions=[10, 20]),
        FileEntry(name="part-00002.parquet", bytes=1, rows=[], impressions=[]),
    ]
    content = manifest.build(
        hash_seed=0, buckets=TEST_BUCKETS, counts={}, quarantine={}, source={}, files=files
    )
    assert row_groups(content) == [
        RowGroup("part-00000.parquet", 0, 1, 10),
        RowGroup("part-00000.parquet", 1, 2, 20),
        RowGroup("part-00001.parquet", 0, 3, 30),
    ]


@pytest.mark.parametrize(
    ("num_impressions", "batch_size", "global_batch_sizes"),
    [
        ((10,), 4, [4, 4, 2]),
        ((8,), 4, [4, 4]),
        ((10, 5), 4, [8, 5, 2]),  # the second rank ends first
        ((3, 0, 9), 4, [7, 4, 1]),  # a rank without any data
        ((0,), 4, []),
    ],
)
def test_global_batch_sizes(
    num_impressions: tuple[int, ...], batch_size: int, global_batch_sizes: list[int]
) -> None:
    schedule = Schedule(num_impressions, batch_size)
    assert [schedule.global_batch_size(step) for step in range(schedule.steps)] == global_batch_sizes


@given(group_lists, st.integers(1, 9))
def test_shards_partition_the_row_groups(groups: list[RowGroup], world_size: int) -> None:
    numbered = [RowGroup(str(i), g.index, g.num_rows, g.num_impressions) for i, g in enumerate(groups)]
    shards = [shard(numbered, rank, world_size) for rank in range(world_size)]
    assert sorted((g for part in shards for g in part), key=lambda g: int(g.file)) == numbered
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@given(group_lists, st.integers(1, 9), st.integers(1, 200))
def test_every_impression_has_its_step(groups: list[RowGroup], world_size: int, batch_size: int) -> None:
    schedule = make_schedule(groups, world_size, batch_size)
    total = sum(group.num_impressions for group in groups)
    sizes = [schedule.global_batch_size(step) for step in range(schedule.steps)]
    assert sum(sizes) == total
    assert all(0 < size <= world_size * batch_size for size in sizes)
    assert schedule.global_batch_size(schedule.steps) == 0


def test_a_batch_holds_at_least_one_impression() -> None:
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        Schedule((10,), 0)
