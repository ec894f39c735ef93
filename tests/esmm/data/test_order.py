"""Which impressions come when: every one once over all ranks, wherever an epoch goes on."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.data.schedule import Leg, Position
from tests.fixtures.loaders import epoch_ids, open_loaders, sample_ids
from tests.fixtures.sample_files import read_rows, write_samples


def test_without_shuffling_batches_follow_the_files(folder: Path) -> None:
    expected = [sample_id for row in read_rows(folder) for sample_id in row["sample_id"]]
    batches = epoch_ids(Loader(str(folder), batch_size=10, with_keys=True))
    assert [i for batch in batches for i in batch] == expected


def test_order_depends_on_seed_and_epoch_only(folder: Path) -> None:
    def ids(seed: int, epoch: int, num_threads: int) -> list[list[int]]:
        options = {"batch_size": 16, "shuffle_window": 10, "with_keys": True, "num_threads": num_threads}
        return epoch_ids(Loader(str(folder), seed=seed, **options), epoch)  # type: ignore[arg-type]

    reference = ids(0, 0, 2)
    assert ids(0, 0, 1) == ids(0, 0, 3) == reference
    assert ids(0, 1, 2) != reference
    assert ids(1, 0, 2) != reference


def test_row_groups_are_shuffled_too(folder: Path) -> None:
    def first_contexts(epoch: int) -> set[str]:
        batch = next(
            Loader(str(folder), batch_size=12, shuffle_window=1, with_keys=True).epoch(Position.start(epoch))
        )
        assert batch.keys is not None
        return set(batch.keys["context_id"].to_pylist())

    assert len({frozenset(first_contexts(epoch)) for epoch in range(8)}) > 3


@pytest.mark.parametrize("shuffle_window", [0, 16])
@pytest.mark.parametrize("world_size", [1, 2, 3, 12])  # 9 row groups: with 12 ranks three have none
def test_every_impression_once_over_all_ranks(folder: Path, world_size: int, shuffle_window: int) -> None:
    loaders = open_loaders(folder, world_size, batch_size=8 * world_size, shuffle_window=shuffle_window)
    schedule = loaders[0].plan(Position.start(1))
    batches = [epoch_ids(loader, epoch=1) for loader in loaders]
    everything = Counter(sample_id for row in read_rows(folder) for sample_id in row["sample_id"])
    assert Counter(i for rank in batches for batch in rank for i in batch) == everything
    for rank, loader in enumerate(loaders):
        assert loader.plan(Position.start(1)) == schedule
        sizes = [len(batch) for batch in batches[rank]]
        assert sizes == [schedule.batch_size_of(rank, step) for step in range(schedule.steps)]


def test_ranks_read_the_row_groups_of_the_schedule(folder: Path) -> None:
    loader = open_loaders(folder, 2, batch_size=16)[1]
    expected: list[int] = []
    for window in loader.plan(Position.start(0)).windows[1]:
        for group in window.groups:
            table = pq.ParquetFile(folder / group.file).read_row_group(group.index)
            expected += [i for ids in table["sample_id"].to_pylist() for i in ids]
    assert [i for batch in epoch_ids(loader) for i in batch] == expected


def test_no_row_group_is_lost_however_the_threads_run(tmp_path: Path) -> None:
    """Petastorm's pool may report the end too early; one row group per thread makes that likely."""
    write_samples(tmp_path / "s", num_rows=4, rows_per_row_group=1, num_files=1)
    loader = Loader(str(tmp_path / "s"), batch_size=5, with_keys=True, num_threads=4)
    first = epoch_ids(loader)
    for _ in range(30):
        assert epoch_ids(loader) == first


@pytest.mark.parametrize("shuffle_window", [0, 12])
@pytest.mark.parametrize("stops", [[1], [3, 4], [2, 9, 1]])
def test_the_same_workers_get_the_batches_of_an_uninterrupted_epoch(
    folder: Path, shuffle_window: int, stops: list[int]
) -> None:
    loaders = open_loaders(folder, 2, batch_size=15, shuffle_window=shuffle_window)
    for loader in loaders:
        whole = list(loader.epoch(Position.start(1)))
        position = Position.start(1)
        for steps in stops:
            position = loader.after(position, steps)
        rest = list(loader.epoch(position))
        assert len(rest) == loader.plan(position).steps == len(whole) - sum(stops)
        assert [to_bytes(batch) for batch in rest] == [to_bytes(batch) for batch in whole[sum(stops) :]]


def to_bytes(batch: Batch) -> list[bytes]:
    """All that is in a batch, the layout of its contexts too."""
    bags = [
        getattr(side, n) for side in (batch.user, batch.impression) for n in ("ids", "weights", "offsets")
    ]
    tensors = [batch.context_index, batch.click, batch.conversion, *bags]
    return [tensor.numpy().tobytes() for tensor in tensors] + [repr(sample_ids(batch)).encode()]


@pytest.mark.parametrize("shuffle_window", [0, 12])
@pytest.mark.parametrize(
    "legs",
    [
        [Leg(2, 16, 5), Leg(1, 16, 3), Leg(3, 16, 99)],
        [Leg(1, 8, 1), Leg(1, 16, 1), Leg(12, 40, 2), Leg(2, 7, 4), Leg(5, 11, 99)],
        [Leg(3, 10, 99), Leg(2, 8, 99)],  # nothing is left for the second
    ],
)
def test_any_sequence_of_legs_gives_every_impression_once(
    folder: Path, legs: list[Leg], shuffle_window: int
) -> None:
    position, seen = Position.start(2), Counter[int]()
    for leg in legs:
        loaders = open_loaders(folder, leg.workers, batch_size=leg.batch_size, shuffle_window=shuffle_window)
        schedule = loaders[0].plan(position)
        steps = min(leg.steps, schedule.steps)
        for rank, loader in enumerate(loaders):
            batches = [sample_ids(batch) for batch in islice(loader.epoch(position), steps)]
            sizes = [schedule.batch_size_of(rank, step) for step in range(steps)]
            assert [len(batch) for batch in batches] == sizes
            seen.update(i for batch in batches for i in batch)
        position = loaders[0].after(position, steps)
    assert seen == Counter(sample_id for row in read_rows(folder) for sample_id in row["sample_id"])
