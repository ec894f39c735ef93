"""A run that starts from another run's numbers: what fits is taken over, the rest is named and fresh."""

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.errors import InputError
from esmm.checkpoints import warm_start
from esmm.checkpoints.files import DENSE_FILE, newest_checkpoint, sha256_of, table_file
from esmm.checkpoints.state import read_state
from esmm.training.train_step import TrainStep
from esmm.training_run import Job, TrainOptions, train
from tests.fixtures.runs import Inputs, forget_schema, log_of, numbers_of
from tests.fixtures.sample_files import TEST_BUCKETS, TEST_SCHEMA, with_other_fields, write_samples
from tests.fixtures.workers import ONE_WORKER

CHANGED = ("205", "301")
# Decay: the stored rows are not the true ones. Rates that still move them.
SETTINGS = ("optimizer.sparse.weight_decay=0.1", "train.epochs=1")


@pytest.fixture(scope="module")
def old(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run to start from. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "old"
    train(ONE_WORKER, inputs.options(folder, *SETTINGS))
    return folder


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Samples whose fields CHANGED have other buckets."""
    buckets = {name: size + 9 * (name in CHANGED) for name, size in TEST_BUCKETS.items()}
    folder = tmp_path_factory.mktemp("changed")
    for number, part in enumerate(("train", "valid")):
        write_samples(folder / part, num_rows=20, seed=number, schema=TEST_SCHEMA.with_buckets(buckets))
    return {part: folder / part for part in ("train", "valid")}


def _started(old: Path, options: TrainOptions) -> tuple[TrainStep, TrainStep]:
    """A model warm-started from a run, and a fresh one."""
    job = Job.read(ONE_WORKER, options)
    warm, fresh = job.start(), job.start()
    warm_start.load(old, job.origin, warm)
    return warm, fresh


def _fields(buckets: dict[str, int]) -> Iterator[tuple[str, slice]]:
    """Rows of each field: they lie end to end in the order of the schema."""
    start = 0
    for name, size in buckets.items():
        yield name, slice(start, start + size)
        start += size


def test_rows_move_to_their_fields_new_place_with_their_optimizer_state(
    old: Path, inputs: Inputs, changed: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    warm, fresh = _started(old, inputs.options(tmp_path / "new", *SETTINGS, **changed))
    numbers, state = numbers_of(newest_checkpoint(old)), read_state(newest_checkpoint(old))
    assert state.scale < 0.99
    before = dict(_fields(TEST_BUCKETS))
    job_buckets = {name: size + 9 * (name in CHANGED) for name, size in TEST_BUCKETS.items()}
    for name, rows in _fields(job_buckets):
        found, squares = warm.model.embedding.table[rows].numpy(), warm.sparse.state["squares"][rows].numpy()
        if name in CHANGED:
            np.testing.assert_array_equal(found, fresh.model.embedding.table[rows].numpy())
            assert not squares.any()
        else:
            np.testing.assert_allclose(found, state.scale * numbers["rows"][before[name]], rtol=1e-6)
            np.testing.assert_array_equal(squares, numbers["squares"][before[name]])
    for key, tensor in warm.model.network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), numbers[f"network.{key}"])
    (line,) = (text for text in caplog.messages if text.startswith("warm start"))
    named = "; ".join(f"{n} (buckets {TEST_BUCKETS[n]} -> {job_buckets[n]})" for n in CHANGED)
    assert line.endswith(f"rows of 21 of 23 fields; fresh: {named}")


@pytest.mark.parametrize("before_schemas", [False, True])
def test_fields_are_matched_by_name_and_those_of_one_schema_named(
    old: Path, inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture, before_schemas: bool
) -> None:
    caplog.set_level(logging.INFO)
    if before_schemas:
        old = shutil.copytree(old, tmp_path / "old")
        forget_schema(old)
    schema = with_other_fields()
    write_samples(tmp_path / "other", num_rows=20, schema=schema)
    other = {"train": tmp_path / "other", "valid": tmp_path / "other"}
    warm, fresh = _started(old, inputs.options(tmp_path / "new", *SETTINGS, **other))
    numbers, state = numbers_of(newest_checkpoint(old)), read_state(newest_checkpoint(old))
    before = dict(_fields(TEST_BUCKETS))
    for name, rows in _fields(schema.buckets):
        found = warm.model.embedding.table[rows].numpy()
        if name in ("206", "season"):
            np.testing.assert_array_equal(found, fresh.model.embedding.table[rows].numpy())
        else:
            np.testing.assert_allclose(found, state.scale * numbers["rows"][before[name]], rtol=1e-6)
    tensors = warm.model.network.state_dict()
    np.testing.assert_array_equal(tensors["context.weight"], numbers["network.context.weight"])
    of_season = 4 * [field.name for field in schema.impression_fields].index("season")
    columns = np.delete(np.arange(40), range(of_season, of_season + 4))
    before_columns = [
        4 * [field.name for field in TEST_SCHEMA.impression_fields].index(field.name) + number
        for field in schema.impression_fields
        if field.name != "season"
        for number in range(4)
    ]
    found, known = tensors["item.weight"].numpy(), numbers["network.item.weight"]
    np.testing.assert_array_equal(found[:, columns], known[:, before_columns])
    assert not found[:, of_season : of_season + 4].any()
    (line,) = (text for text in caplog.messages if text.startswith("warm start"))
    named = "206 (buckets 148 -> 157); season (not in the other run); item.weight (4 of its 40 inputs)"
    assert line.endswith(f"rows of 21 of 23 fields; fresh: {named}; not in this run: 301")


def test_the_shards_of_two_workers_move_too(
    old: Path, inputs: Inputs, changed: dict[str, Path], tmp_path: Path
) -> None:
    two = shutil.copytree(old, tmp_path / "two")
    folder = newest_checkpoint(two)
    whole = load_file(folder / table_file(0, 1))
    (folder / table_file(0, 1)).unlink()
    state = read_state(folder)
    sha256 = {DENSE_FILE: state.sha256[DENSE_FILE]}
    for rank in range(2):
        path = folder / table_file(rank, 2)
        save_file({name: tensor[rank::2].contiguous() for name, tensor in whole.items()}, path)
        sha256[path.name] = sha256_of(path).hex()
    (folder / "state.json").write_text(replace(state, world_size=2, sha256=sha256).to_json())
    options = inputs.options(tmp_path / "new", *SETTINGS, **changed)
    (one, _), (found, _) = _started(old, options), _started(two, options)
    assert found.model.embedding.table.equal(one.model.embedding.table)
    assert found.sparse.state["squares"].equal(one.sparse.state["squares"])


@pytest.mark.parametrize("older", [False, True])
def test_rows_of_lazy_adam_go_on_with_the_steps_they_took(
    inputs: Inputs, changed: dict[str, Path], tmp_path: Path, older: bool
) -> None:
    """By a gradient that stays: a known row's step is the last one's before, a fresh row's its learning rate.

    older: the checkpoint is of before steps were counted.
    """
    settings = ("optimizer.sparse.name=lazy_adam", "optimizer.sparse.learning_rate=0.1", "train.epochs=1")
    train(ONE_WORKER, inputs.options(tmp_path / "old", *settings))
    path = newest_checkpoint(tmp_path / "old") / table_file(0, 1)
    tensors, steps = load_file(path), read_state(path.parent).step
    tensors["mean"].fill_(1 - 0.9**steps)  # what a gradient of 1 in all of its steps leaves
    tensors["square"].fill_(1 - 0.999**steps)
    _rewrite(path, {name: tensor for name, tensor in tensors.items() if not older or name != "steps_before"})
    warm, _ = _started(tmp_path / "old", inputs.options(tmp_path / "new", *settings, **changed))
    table, buckets = warm.model.embedding.table, {n: s + 9 * (n in CHANGED) for n, s in TEST_BUCKETS.items()}
    for step in range(1, 20):
        before = table.clone()
        rows = torch.arange(table.shape[0]).int()
        warm.sparse.update(table, rows, torch.ones_like(table), step, 1.0)
        for name, part in _fields(buckets):
            moved = before[part] - table[part]
            torch.testing.assert_close(moved, torch.full_like(moved, 0.1), rtol=1e-3, atol=1e-5, msg=name)


def _rewrite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put other tensors into a checkpoint, with their checksum."""
    save_file(tensors, path)
    state = read_state(path.parent)
    sha256 = {**state.sha256, path.name: sha256_of(path).hex()}
    (path.parent / "state.json").write_text(replace(state, sha256=sha256).to_json())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            ["model.towers=[8]"],
            r"rows of 23 of 23 fields; fresh: towers\.0\.0\.weight \(\[4, 8\] -> \[1, 8\]\)",
        ),
        (
            ["model.embedding_dim=6"],
            r"rows of 0 of 23 fields; fresh: 101, .* \(rows of 1 x 4 numbers -> 1 x 6 numbers\); ",
        ),
        (
            ["optimizer.sparse.name=lazy_adam"],
            "fresh: optimizer state mean, optimizer state square, optimizer state steps_before",
        ),
    ],
)
def test_what_another_model_cannot_take_is_named(
    old: Path,
    inputs: Inputs,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    settings: list[str],
    named: str,
) -> None:
    caplog.set_level(logging.INFO)
    _started(old, inputs.options(tmp_path / "new", *settings))
    assert caplog.text.count("warm start from") == 1
    assert re.search(named, caplog.text)


def test_where_nothing_fits_it_does_not_start(old: Path, inputs: Inputs, tmp_path: Path) -> None:
    write_samples(tmp_path / "other", num_rows=10, hash_seed=5)
    other = {"train": tmp_path / "other", "valid": tmp_path / "other"}
    options = inputs.options(tmp_path / "new", "model.towers=[7]", "--warm-start", str(old), **other)
    with pytest.raises(InputError, match=r"nothing of it fits \(101, .*hash_seed: 0 -> 5\)"):
        train(ONE_WORKER, options)


def test_a_warm_start_begins_where_the_other_run_ended(old: Path, inputs: Inputs, tmp_path: Path) -> None:
    warm, cold = tmp_path / "warm", tmp_path / "cold"
    still = ("optimizer.sparse.learning_rate=1e-30", "optimizer.dense.learning_rate=1e-30", "train.epochs=1")
    train(ONE_WORKER, inputs.options(warm, *still, "--warm-start", str(old)))
    train(ONE_WORKER, inputs.options(cold, *still))
    ended, found, fresh = (log_of(run)[-1]["auc_ctr"] for run in (old, warm, cold))
    assert found == pytest.approx(ended, abs=1e-3) and abs(fresh - ended) > 0.01
    train(ONE_WORKER, inputs.options(warm, *still, "train.epochs=2", "--resume", "--warm-start", str(old)))
    assert [entry["epoch"] for entry in log_of(warm) if entry["kind"] == "epoch"] == [1, 2], "resume wins"


@pytest.mark.parametrize(("other", "message"), [("nowhere", "expected a checkpoint"), ("run", "another run")])
def test_there_must_be_another_run(inputs: Inputs, tmp_path: Path, other: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(ONE_WORKER, inputs.options(tmp_path / "run", "--warm-start", str(tmp_path / other)))
    assert not (tmp_path / "run").exists()
