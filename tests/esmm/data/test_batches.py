"""What is in a batch, against a slow assembly from plain Python rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esmm.data.loader import Loader
from esmm.data.schedule import Position
from tests.fixtures.loaders import sample_ids
from tests.fixtures.plain_batches import check_batch, rows_of_samples
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows, write_samples

AVERAGED = ("109_14", "110_14", "127_14", "150_14", "210")


@pytest.mark.parametrize("shuffle_window", [0, 12])
def test_batches_hold_what_the_rows_hold(folder: Path, shuffle_window: int) -> None:
    rows = read_rows(folder)
    of_sample = rows_of_samples(rows)
    loader = Loader(str(folder), batch_size=7, shuffle_window=shuffle_window, seed=3, with_keys=True)
    batches = list(loader.epoch(Position.start(0)))
    for batch in batches:
        check_batch(batch, of_sample, TEST_SCHEMA, AVERAGED)
    # Seven does not divide the contexts, so some of them lie across a border.
    owners = [set(batch.keys["context_id"].to_pylist()) for batch in batches if batch.keys is not None]
    assert sum(map(len, owners)) > len(rows)


@pytest.mark.parametrize(
    "options",
    [
        {"num_rows": 3, "num_files": 5},  # files without rows
        {"num_rows": 1, "num_files": 1, "max_impressions": 1},
        {"num_rows": 12, "missing": 1.0},  # all lists empty, all ids missing, no user
        {"num_rows": 12, "missing": 0.0, "mean_list": 40.0},
    ],
)
def test_odd_sample_sets(tmp_path: Path, options: dict[str, Any]) -> None:
    write_samples(tmp_path / "s", **options)
    rows = read_rows(tmp_path / "s")
    of_sample = rows_of_samples(rows)
    batches = list(
        Loader(str(tmp_path / "s"), batch_size=9, shuffle_window=4, with_keys=True).epoch(Position.start(0))
    )
    assert sorted(i for batch in batches for i in sample_ids(batch)) == sorted(of_sample)
    for batch in batches:
        check_batch(batch, of_sample, TEST_SCHEMA, AVERAGED)


def test_contexts_appear_once_per_batch(folder: Path) -> None:
    for batch in Loader(str(folder), batch_size=30, shuffle_window=20, with_keys=True).epoch(
        Position.start(0)
    ):
        assert batch.keys is not None
        assert len(set(batch.keys["context_id"].to_pylist())) == batch.num_contexts
        assert batch.context_index.unique().tolist() == list(range(batch.num_contexts))


def test_types(folder: Path) -> None:
    batch = next(Loader(str(folder), batch_size=10).epoch(Position.start(0)))
    assert batch.keys is None
    tensors = [batch.context_index, batch.click, batch.user.ids, batch.user.weights, batch.user.offsets]
    names = ["int64", "float32", "int32", "float32", "int32"]
    assert [str(tensor.dtype) for tensor in tensors] == [f"torch.{name}" for name in names]


def test_weights_of_bags_are_finite(folder: Path) -> None:
    for batch in Loader(str(folder), batch_size=50).epoch(Position.start(0)):
        for bags in (batch.user, batch.impression):
            assert np.isfinite(bags.weights.numpy()).all()
