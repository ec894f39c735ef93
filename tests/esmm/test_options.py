"""All options of a training together: a run repeats, goes on where it was cut off, and predicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from esmm.training_run import train
from tests.fixtures.runs import Inputs, assert_same_run, cut_off, log_of, predictions_of
from tests.fixtures.workers import ONE_WORKER

ALL = (
    "model.dropout=0.2",
    "model.batch_norm=true",
    "model.input_norm=true",
    "loss.task_weights={ctr: 0.5, ctcvr: 2}",
    "loss.class_weights={click: 3, conversion: 5}",
    "optimizer.schedule={warmup_steps: 3, decay: linear, final_factor: 0.1}",
    "optimizer.dense.weight_decay=0.01",
    "optimizer.sparse={name: lazy_adam, learning_rate: 0.01, l2: 0.001, weight_decay: 0.01}",
    "optimizer.clip_grad_norm=1",
    "train.deterministic=true",
    "train.precision=bf16",
    "train.checkpoint_steps=4",
    "train.keep_checkpoints=99",
    "tracking.tensorboard=true",
)


@pytest.fixture(scope="module")
def run(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with all options. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "all"
    train(ONE_WORKER, inputs.options(folder, *ALL))
    return folder


def test_a_run_with_all_options_repeats(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    assert torch.are_deterministic_algorithms_enabled()
    train(ONE_WORKER, inputs.options(tmp_path / "again", *ALL))
    assert_same_run(tmp_path / "again", run)
    assert log_of(tmp_path / "again") == log_of(run)


def test_a_run_on_a_cpu_repeats_without_the_option_too(inputs: Inputs, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(ONE_WORKER, inputs.options(tmp_path / name))
    assert not torch.are_deterministic_algorithms_enabled()
    assert_same_run(tmp_path / "two", tmp_path / "one")
    assert log_of(tmp_path / "two") == log_of(tmp_path / "one")


def test_a_run_with_all_options_goes_on_where_it_was_cut_off(
    run: Path, inputs: Inputs, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    cut_off(copy, 4)
    train(ONE_WORKER, inputs.options(copy, *ALL, "--resume"))
    assert_same_run(copy, run)


def test_prediction_uses_the_running_statistics_and_no_dropout(
    run: Path, inputs: Inputs, tmp_path: Path
) -> None:
    first, second = (predictions_of(run, inputs.valid, tmp_path / name) for name in ("a", "b"))
    assert first.equals(second)
    p_ctr = np.array(first["p_ctr"])
    assert np.isfinite(p_ctr).all()
    assert len(np.unique(p_ctr)) > len(p_ctr) / 2


@pytest.mark.parametrize(
    "setting",
    [
        "model.dropout=0.5",
        "model.batch_norm=true",
        "model.input_norm=true",
        "loss.task_weights.ctr=0.1",
        "loss.class_weights.click=4",
        "loss.class_weights.conversion=4",
        "optimizer.schedule.warmup_steps=5",
        "optimizer.dense.weight_decay=0.5",
        "optimizer.clip_grad_norm=0.01",
        "optimizer.sparse.l2=0.5",
        "optimizer.sparse.weight_decay=0.5",
        "optimizer.sparse.name=sgd",
        "train.precision=bf16",
    ],
)
def test_every_option_changes_what_is_learnt(
    setting: str, plain: list[float], inputs: Inputs, tmp_path: Path
) -> None:
    assert _losses(inputs, tmp_path / "run", setting) != plain


@pytest.fixture(scope="module")
def plain(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return _losses(inputs, tmp_path_factory.mktemp("runs") / "plain")


def _losses(inputs: Inputs, folder: Path, *settings: str) -> list[float]:
    train(ONE_WORKER, inputs.options(folder, "train.epochs=1", "train.log_every=99", *settings))
    lines = (folder / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["loss_ctr"] for line in lines if json.loads(line)["kind"] == "train"]
