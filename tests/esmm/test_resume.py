"""A run that was cut off goes on as if nothing had happened, with any number of workers."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from esmm import checkpoint
from esmm.train import train
from schemas.errors import InputError
from tests.esmm.conftest import ONE_WORKER, Command
from tests.esmm.runs import (
    Inputs,
    assert_same_run,
    cut_off,
    log_of,
    numbers_of,
    predictions_of,
    read_predictions,
)
from tests.esmm.sample_files import write_samples

# A schedule that depends on the whole run's length; checkpoints off the log's rhythm.
SETTINGS = (
    "train.checkpoint_steps=4",
    "train.keep_checkpoints=99",
    "train.log_every=3",
    "optimizer.schedule.warmup_steps=3",
    "optimizer.schedule.decay=cosine",
    "optimizer.sparse.weight_decay=0.01",
    "optimizer.clip_grad_norm=0.5",
    "loader.shuffle_window=16",
)
NO_MOVE = ("optimizer.sparse.learning_rate=1e-30", "optimizer.dense.learning_rate=1e-30")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of one worker. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(ONE_WORKER, inputs.arguments(folder, *SETTINGS))
    return folder


@pytest.fixture(scope="module")
def whole_of_two(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """The same with two workers."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    done = command("-m", "esmm.train", *inputs.arguments(folder, *SETTINGS), workers=2)
    assert done.returncode == 0, done.stderr
    return folder


def _steps(run: Path) -> list[int]:
    return [checkpoint.step_of(folder) for folder in checkpoint.complete(run)]


def _epoch_ends(run: Path) -> list[int]:
    return [entry["step"] for entry in log_of(run) if entry["kind"] == "epoch"]


def test_there_is_a_checkpoint_every_so_many_steps_and_at_each_epochs_end(whole: Path) -> None:
    ends = _epoch_ends(whole)
    assert _steps(whole) == sorted({*range(4, ends[-1] + 1, 4), *ends})


def test_a_resumed_run_is_the_uninterrupted_one(whole: Path, inputs: Inputs, tmp_path: Path) -> None:
    end = _epoch_ends(whole)[0]
    for step in (4, end, end - end % 4 + 4):  # in the first epoch, at its end, in the second
        copy = shutil.copytree(whole, tmp_path / f"from_{step}")
        cut_off(copy, step)
        train(ONE_WORKER, inputs.arguments(copy, *SETTINGS, "--resume"))
        assert_same_run(copy, whole)
        assert (copy / "_SUCCESS").exists()


def test_two_workers_resume_too(whole_of_two: Path, inputs: Inputs, tmp_path: Path, command: Command) -> None:
    copy = shutil.copytree(whole_of_two, tmp_path / "copy")
    cut_off(copy, 8)
    done = command("-m", "esmm.train", *inputs.arguments(copy, *SETTINGS, "--resume"), workers=2)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr and "step-000008" in done.stderr
    assert_same_run(copy, whole_of_two)


def test_two_workers_then_one_then_three_hold_the_same_model(
    whole_of_two: Path, inputs: Inputs, tmp_path: Path, command: Command
) -> None:
    """Rates that move nothing: the model that three workers end with is that of the two."""
    run = shutil.copytree(whole_of_two, tmp_path / "run")
    expected = predictions_of(run, inputs.valid, tmp_path / "of_two").sort_by("sample_id")
    settings = [*SETTINGS, *NO_MOVE, "optimizer.sparse.weight_decay=0", "optimizer.schedule.decay=none"]
    train(ONE_WORKER, inputs.arguments(run, *settings, "train.epochs=3", "--resume"))
    done = command(
        "-m", "esmm.train", *inputs.arguments(run, *settings, "train.epochs=4", "--resume"), workers=3
    )
    assert done.returncode == 0, done.stderr
    worlds = [checkpoint.read_state(folder).world_size for folder in checkpoint.complete(run)]
    assert sorted(set(worlds), key=worlds.index) == [2, 1, 3]
    predicted = command(
        "-m",
        "esmm.predict",
        "--run",
        run,
        "--samples",
        inputs.valid,
        "--out",
        tmp_path / "of_three",
        workers=3,
    )
    assert predicted.returncode == 0, predicted.stderr
    found = read_predictions(tmp_path / "of_three").sort_by("sample_id")
    assert found["sample_id"].equals(expected["sample_id"])
    for name in ("p_ctr", "p_cvr"):
        np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), rtol=1e-5)


def test_another_number_of_workers_in_the_middle_of_an_epoch_trains_on_what_is_left(
    whole_of_two: Path, inputs: Inputs, tmp_path: Path
) -> None:
    run = shutil.copytree(whole_of_two, tmp_path / "run")
    cut_off(run, 8)
    before = checkpoint.read_state(checkpoint.latest(run)).position
    assert (before.epoch, [(leg.workers, leg.steps) for leg in before.legs]) == (1, [(2, 8)])
    train(ONE_WORKER, inputs.arguments(run, *SETTINGS, "--resume"))
    impressions = 8 * 32
    total = sum(file["impressions"] and sum(file["impressions"]) for file in _manifest(inputs)["files"])
    assert _epoch_ends(run)[0] == 8 + -(-(total - impressions) // 32)


def _manifest(inputs: Inputs) -> dict:
    from schemas import manifest

    return dict(manifest.read(str(inputs.train)))
