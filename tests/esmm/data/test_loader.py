"""The loader on few data and with many workers, and how an epoch ends."""

import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cli.errors import InputError
from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.data.petastorm_reader import OrderedResults
from esmm.data.schedule import Position
from tests.fixtures.loaders import epoch_ids, open_loaders
from tests.fixtures.sample_files import read_rows


def test_leaving_an_epoch_ends_its_threads(folder: Path) -> None:
    before = threading.active_count()
    loader = Loader(str(folder), batch_size=2, shuffle_window=10)
    for _ in loader.epoch(Position.start(0)):
        break
    assert threading.active_count() == before

    def fail(batch: Batch) -> None:
        raise RuntimeError("the trainer failed")

    with pytest.raises(RuntimeError, match="the trainer failed"):
        list(map(fail, loader.epoch(Position.start(1))))
    assert threading.active_count() == before
    assert len(list(loader.epoch(Position.start(2)))) == loader.plan(Position.start(0)).steps
    assert threading.active_count() == before
    assert loader.wait_seconds > 0


def test_an_epoch_that_ends_too_early_is_no_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest would be empty batches, and nobody would know."""
    read_next, results = OrderedResults.read_next, count()

    def end_early(*arguments: Any) -> Any:
        if next(results) == 8:  # the last row group of the last window
            raise StopIteration
        return read_next(*arguments)

    monkeypatch.setattr(OrderedResults, "read_next", end_early)
    with pytest.raises(ValueError, match="shorter"):
        list(Loader(str(folder), batch_size=8, shuffle_window=12).epoch(Position.start(0)))


def test_more_workers_than_row_groups(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "esmm.data.loader"):
        loaders = open_loaders(folder, 12, batch_size=60)
    assert [record.getMessage() for record in caplog.records] == 12 * [
        f"{folder}: 9 row groups for 12 workers: 3 of them take part with empty batches"
    ]
    schedule = loaders[0].plan(Position.start(0))
    idle = [rank for rank, left in enumerate(schedule.num_impressions) if not left]
    assert len(idle) == 3
    for rank in idle:
        batches = list(loaders[rank].epoch(Position.start(0)))
        assert [batch.num_impressions for batch in batches] == [0] * schedule.steps


def test_a_batch_larger_than_the_data(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = sorted(i for row in read_rows(folder) for i in row["sample_id"])
    with caplog.at_level("INFO", "esmm.data.loader"):
        loader = Loader(str(folder), batch_size=5000, shuffle_window=8, with_keys=True)
    (batch,) = epoch_ids(loader)
    assert sorted(batch) == everything
    assert loader.plan(Position.start(0)).global_batch_size(0) == len(everything)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: {len(everything)} impressions, train.batch_size is 5000: a pass is 1 step(s)"
    ]


def test_fewer_impressions_per_step_than_workers(folder: Path) -> None:
    with pytest.raises(InputError, match=r"at least one impression per worker \(3\), found 2"):
        Loader(str(folder), batch_size=2, world_size=3)
