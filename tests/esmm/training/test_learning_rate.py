"""The course of the learning rates at its corners, and between them against tables worked out by hand."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from esmm.checkpoints.files import newest_checkpoint
from esmm.checkpoints.state import read_state
from esmm.config import ScheduleConfig
from esmm.training.learning_rate import lr_factor
from esmm.training_run import Job, train
from tests.fixtures.runs import Inputs, numbers_of
from tests.fixtures.workers import ONE_WORKER


def _course(total_steps: int, **options: object) -> list[float]:
    config = ScheduleConfig.model_validate(options)
    return [lr_factor(config, step, total_steps) for step in range(1, total_steps + 1)]


def test_without_options_the_rates_stay() -> None:
    assert _course(5) == [1.0] * 5


def test_warm_up_starts_above_zero_and_reaches_the_full_rate() -> None:
    assert _course(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_decay_goes_towards_the_final_factor() -> None:
    course = _course(6, warmup_steps=2, decay="linear", final_factor=0.2)
    assert course == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4])


def test_held_rates_fall_in_the_steps_that_are_left() -> None:
    course = _course(10, warmup_steps=2, decay="linear", hold=0.5)
    assert course == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_cosine_decay_is_slow_at_both_ends() -> None:
    course = _course(5, warmup_steps=1, decay="cosine", final_factor=0.1)
    half = 0.45  # of the way from 1 to 0.1
    assert course == pytest.approx([1.0, 1.0, 0.55 + half * 0.5**0.5, 0.55, 0.55 - half * 0.5**0.5])


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_without_warm_up_the_first_step_has_the_full_rate_and_the_last_still_some(decay: str) -> None:
    course = _course(100, decay=decay)
    assert course[0] == 1
    assert all(earlier > later for earlier, later in itertools.pairwise(course))
    assert 0 < course[-1] <= 0.01 + 1e-12


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_steps_beyond_the_last_have_the_final_factor(decay: str) -> None:
    config = ScheduleConfig(decay=decay, final_factor=0.3)
    assert lr_factor(config, 10, 10) > lr_factor(config, 11, 10) == pytest.approx(0.3)
    assert lr_factor(config, 1000, 10) == lr_factor(config, 11, 10)


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
def test_a_run_not_longer_than_its_warm_up_only_warms_up(decay: str) -> None:
    assert _course(3, warmup_steps=4, decay=decay) == [0.25, 0.5, 0.75]
    assert _course(4, warmup_steps=4, decay=decay) == [0.25, 0.5, 0.75, 1.0]


def test_a_run_of_one_step_has_the_full_rate() -> None:
    assert _course(1, decay="linear") == [1.0]


def test_a_run_of_one_step_learns(inputs: Inputs, tmp_path: Path) -> None:
    """A day with fewer impressions than a batch: its run is complete, so it must be of a trained model."""
    settings = ["train.batch_size=100000", "train.epochs=1", "optimizer.schedule.decay=linear"]
    train(ONE_WORKER, inputs.options(tmp_path / "run", *settings))
    numbers = numbers_of(newest_checkpoint(tmp_path / "run"))
    start = Job.read(ONE_WORKER, inputs.options(tmp_path / "run", *settings)).start().model
    assert read_state(newest_checkpoint(tmp_path / "run")).step == 1
    assert not np.array_equal(numbers["rows"], start.embedding.table.numpy())
    for name, parameter in start.network.named_parameters():
        assert not np.array_equal(numbers[f"network.{name}"], parameter.detach().numpy()), name
