"""N workers with batch B/N compute what one worker computes with batch B."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from esmm.checkpoints.files import newest_checkpoint, table_file
from esmm.checkpoints.loading import load_training
from esmm.checkpoints.state import read_state, require_fit
from esmm.training.train_step import TrainStep, make_model
from esmm.workers.world import World
from tests.fixtures.plain_batches import few_rows, random_batch, to_batch
from tests.fixtures.workers import ONE_WORKER, Command
from tests.programs import twenty_steps


def _losses(run: Path) -> np.ndarray:
    return np.array(json.loads((run / "losses.json").read_text()))


def _load(run: Path, case: str, world: World) -> TrainStep:
    config = twenty_steps.make_config(case)
    trained = TrainStep(config, make_model(config.model, few_rows(twenty_steps.NUM_ROWS), world), world)
    newest = newest_checkpoint(run)
    state = read_state(newest)
    require_fit(newest, state, config.model, twenty_steps.MANIFEST)
    load_training(newest, state, trained)
    return trained


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of twenty_steps.py with one worker."""
    folder = tmp_path_factory.mktemp("one")
    for case in twenty_steps.CASES:
        twenty_steps.train(case, folder, ONE_WORKER)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """Output of twenty_steps.py with two workers."""
    return _run_workers(tmp_path_factory.mktemp("two"), command, 2)


def _run_workers(folder: Path, command: Command, workers: int) -> Path:
    done = command("-m", "tests.programs.twenty_steps", folder, workers=workers)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case", twenty_steps.CASES)
def test_two_workers_compute_what_one_computes(one: Path, two: Path, case: str) -> None:
    _assert_same_training(two / case, one / case, case)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [3, 4])
def test_more_workers_compute_what_one_computes(
    one: Path, tmp_path: Path, command: Command, workers: int
) -> None:
    many = _run_workers(tmp_path, command, workers)
    for case in twenty_steps.CASES:
        _assert_same_training(many / case, one / case, case)


def _assert_same_training(many: Path, one: Path, case: str) -> None:
    assert len(_losses(one)) == twenty_steps.STEPS
    np.testing.assert_allclose(_losses(many), _losses(one), rtol=1e-5)
    trained, expected = _load(many, case, ONE_WORKER), _load(one, case, ONE_WORKER)
    _assert_close(trained.model.embedding.table, expected.model.embedding.table)
    for name, state in expected.sparse.state.items():
        _assert_close(trained.sparse.state[name], state)
    network, other = (step.model.network.state_dict() for step in (trained, expected))
    assert network.keys() == other.keys()
    # Adam divides a gradient by its size: of one that is next to nothing little is certain.
    atol = 2e-5 if case in twenty_steps.MODELS else 1e-6
    for name, tensor in network.items():
        _assert_close(tensor, other[name], atol)


def _assert_close(found: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=atol)


def test_the_batches_repeat_ids_within_and_across_workers() -> None:
    whole = random_batch(random.Random(1), num_contexts=5, num_impressions=24, num_rows=twenty_steps.NUM_ROWS)
    ids = [to_batch(whole.part(rank, 2), twenty_steps.NUM_ROWS).impression.ids.tolist() for rank in range(2)]
    assert len(set(ids[0])) < len(ids[0])
    assert set(ids[0]) & set(ids[1])


def test_training_moves_rows_by_far_more_than_the_tolerance(one: Path) -> None:
    config = twenty_steps.make_config("rowwise_adagrad")
    model = make_model(config.model, few_rows(twenty_steps.NUM_ROWS), ONE_WORKER)
    model.embedding.initialise(config.train.seed, config.model.embedding_init)
    trained = _load(one / "rowwise_adagrad", "rowwise_adagrad", ONE_WORKER)
    moved = (trained.model.embedding.table - model.embedding.table).abs()
    assert moved.median() > 1e-3


@pytest.mark.parametrize("case", twenty_steps.OPTIMIZERS)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_checkpoint_of_two_workers_loads_on_any_number(two: Path, case: str, workers: int) -> None:
    newest = newest_checkpoint(two / case)
    shards = [load_file(newest / table_file(rank, 2)) for rank in range(2)]
    for rank in range(workers):
        reader = World(workers, rank, 0, 1, torch.device("cpu"))
        trained = _load(two / case, case, reader)
        tensors = {"rows": trained.model.embedding.table, **trained.sparse.state}
        for name, found in tensors.items():
            rows = range(rank, twenty_steps.NUM_ROWS, workers)
            expected = [shards[row % 2][name][row // 2].numpy() for row in rows]
            np.testing.assert_array_equal(found.numpy(), np.array(expected))
    assert trained.step == twenty_steps.STEPS
