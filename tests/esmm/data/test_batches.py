"""What is in a batch, against a slow assembly from plain Python rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.embedding.bags import Bags, field_offsets
from schemas.fields import Field
from tests.fixtures.ali_ccp import IMPRESSION_FIELDS, USER_FIELDS
from tests.fixtures.loaders import sample_ids
from tests.fixtures.sample_files import TEST_BUCKETS, read_rows, write_samples

Row = dict[str, Any]
WeightedBag = list[tuple[int, float]]


def weigh(field: Field, ids: list[int], weights: list[float]) -> WeightedBag:
    """Fused ids and final weights of one bag, as the design says it."""
    start = field_offsets(TEST_BUCKETS)[field.name]
    if field.name in ("109_14", "110_14", "127_14", "150_14", "210"):
        total = sum(weights)
        weights = [w / total for w in weights]
    return [(start + i, w) for i, w in zip(ids, weights, strict=True)]


def user_bag(row: Row, field: Field) -> WeightedBag:
    ids = row[field.column]
    ids = ids if field.multi else [ids]
    return weigh(field, ids, row[field.weight_column] if field.weighted else [1.0] * len(ids))


def impression_bag(row: Row, field: Field, i: int) -> WeightedBag:
    low, high = i, i + 1
    if field.multi:
        low = sum(row[field.length_column][:i])
        high = low + row[field.length_column][i]
    ids = row[field.column][low:high]
    return weigh(field, ids, row[field.weight_column][low:high] if field.weighted else [1.0] * len(ids))


def bag_of(bags: Bags, num_fields: int, field: int, owner: int) -> WeightedBag:
    low, high = bags.offsets[owner * num_fields + field : owner * num_fields + field + 2].tolist()
    return list(zip(bags.ids[low:high].tolist(), bags.weights[low:high].tolist(), strict=True))


def assert_same_bag(found: WeightedBag, expected: WeightedBag) -> None:
    assert [i for i, _ in found] == [i for i, _ in expected]
    assert [w for _, w in found] == pytest.approx([w for _, w in expected], rel=1e-5)


def check_batch(batch: Batch, of_sample: dict[int, tuple[Row, int]]) -> None:
    """Compare every impression of a batch with its row in the files."""
    assert batch.keys is not None
    for k, key in enumerate(batch.keys.to_pylist()):
        row, i = of_sample[key["sample_id"]]
        labels = {name: row[name][i] for name in ("click", "conversion")}
        assert (
            key
            == {name: row[name] for name in ("context_id", "user_id")}
            | {"sample_id": key["sample_id"]}
            | labels
        )
        assert (batch.click[k], batch.conversion[k]) == (labels["click"], labels["conversion"])
        context = int(batch.context_index[k])
        for f, field in enumerate(USER_FIELDS):
            assert_same_bag(bag_of(batch.user, len(USER_FIELDS), f, context), user_bag(row, field))
        for f, field in enumerate(IMPRESSION_FIELDS):
            found = bag_of(batch.impression, len(IMPRESSION_FIELDS), f, k)
            assert_same_bag(found, impression_bag(row, field, i))


@pytest.mark.parametrize("shuffle_window", [0, 12])
def test_batches_hold_what_the_rows_hold(folder: Path, shuffle_window: int) -> None:
    rows = read_rows(folder)
    of_sample = {sample_id: (row, i) for row in rows for i, sample_id in enumerate(row["sample_id"])}
    loader = Loader(str(folder), batch_size=7, shuffle_window=shuffle_window, seed=3, with_keys=True)
    batches = list(loader.epoch(Position.start(0)))
    for batch in batches:
        check_batch(batch, of_sample)
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
    of_sample = {sample_id: (row, i) for row in rows for i, sample_id in enumerate(row["sample_id"])}
    batches = list(
        Loader(str(tmp_path / "s"), batch_size=9, shuffle_window=4, with_keys=True).epoch(Position.start(0))
    )
    assert sorted(i for batch in batches for i in sample_ids(batch)) == sorted(of_sample)
    for batch in batches:
        check_batch(batch, of_sample)


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
