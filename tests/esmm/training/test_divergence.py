"""Numbers that are not finite: the step and rank that had them first, and its batch, read back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from esmm.batch import Batch
from esmm.training.divergence import Guard, bad_batch_name, load_batch, save_batch
from esmm.workers.world import AgreedError
from tests.fixtures.workers import ONE_WORKER, Command
from tests.programs.spoiled_steps import (
    IMPRESSIONS,
    NUM_ROWS,
    SPOILED,
    make_batch,
    make_trained,
    spoil,
    take_steps,
)

FINE, BAD = torch.ones(2), torch.tensor([1.0, np.nan])


def test_a_bad_batch_is_named_saved_and_still_bad_when_read_back(tmp_path: Path) -> None:
    with pytest.raises(AgreedError) as caught:
        take_steps(tmp_path, ONE_WORKER)
    path = tmp_path / bad_batch_name(SPOILED, rank=0)
    for part in ("training diverged", "loss is not finite in step 3, on rank 0", str(path), "learning_rate"):
        assert part in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    again = load_batch(path).with_request(NUM_ROWS, 1)
    _assert_same(again, spoil(make_batch(SPOILED)))
    assert not make_trained(ONE_WORKER)(again, IMPRESSIONS).isfinite().all()
    assert make_trained(ONE_WORKER)(make_batch(SPOILED), IMPRESSIONS).isfinite().all()


def test_a_batch_of_the_first_releases_has_the_default_fields(tmp_path: Path) -> None:
    """They did not save how many there are."""
    path = tmp_path / bad_batch_name(1, rank=0)
    save_batch(path, make_batch(1))
    tensors = load_file(path)
    del tensors["num_fields"]
    save_file(tensors, path)
    _assert_same(load_batch(path), make_batch(1))


def test_all_workers_stop_for_the_bad_batch_of_one(tmp_path: Path, command: Command) -> None:
    done = command("-m", "tests.programs.spoiled_steps", tmp_path, workers=2)
    path = tmp_path / bad_batch_name(SPOILED, rank=1)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name], done.stderr
    assert done.returncode == 1, "whatever a worker's exit code is"
    message = f"error: training diverged: the loss is not finite in step {SPOILED}, on rank 1."
    assert (done.stdout + done.stderr).count(message) == 1
    _assert_same(load_batch(path), spoil(make_batch(10 + SPOILED)))


def _assert_same(found: Batch, expected: Batch) -> None:
    for name in ("context_index", "click", "conversion"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for side in ("user", "impression"):
        for name in ("ids", "weights", "offsets"):
            tensor, other = (getattr(getattr(batch, side), name) for batch in (found, expected))
            assert torch.equal(tensor, other) and tensor.dtype == other.dtype, (side, name)


def test_finite_steps_pass(tmp_path: Path) -> None:
    guard = Guard(tmp_path, ONE_WORKER)
    guard.check()
    for step in range(1, 4):
        guard.watch(step, make_batch(step), FINE, [FINE])
        guard.check()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_counts_where_the_loss_is_finite(tmp_path: Path, number: float) -> None:
    guard = Guard(tmp_path, ONE_WORKER)
    guard.watch(1, make_batch(1), FINE, [FINE, FINE])
    guard.watch(2, make_batch(2), FINE, [FINE, torch.tensor([1.0, number])])
    guard.watch(3, make_batch(3), BAD, [BAD, BAD])
    with pytest.raises(AgreedError, match="the gradient is not finite in step 2"):
        guard.check()
    _assert_same(load_batch(tmp_path / bad_batch_name(2, 0)), make_batch(2))


def test_a_guard_that_does_not_look_at_every_step_knows_the_step_and_the_last_batch(tmp_path: Path) -> None:
    """As on a GPU."""
    guard = Guard(tmp_path, ONE_WORKER)
    guard.knows_at_once = False
    for step in (1, 2, 3):
        guard.watch(step, make_batch(step), FINE if step == 1 else BAD, [FINE])
    with pytest.raises(AgreedError, match=r"in step 2, on rank 0\. .*--resume --set train\.log_every=1"):
        guard.check()
    assert not list(tmp_path.iterdir())
    guard = Guard(tmp_path, ONE_WORKER)
    guard.knows_at_once = False
    guard.watch(4, make_batch(4), BAD, [FINE])
    with pytest.raises(AgreedError, match=str(tmp_path / bad_batch_name(4, 0))):
        guard.check()
    _assert_same(load_batch(tmp_path / bad_batch_name(4, 0)), make_batch(4))
