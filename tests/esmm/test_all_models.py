"""Every model through the whole road: losses fall, runs resume to the bit, predictions belong together."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from cli.errors import InputError
from esmm.model.models import network_class
from esmm.model_config import ModelConfig
from esmm.training_run import train
from schemas.samples import MANIFEST_NAME
from schemas.schema import Tables
from tests.fixtures.runs import Inputs, assert_same_run, cut_off, predictions_of
from tests.fixtures.sample_files import TEST_SCHEMA
from tests.fixtures.workers import ONE_WORKER

NAMES = get_args(ModelConfig.model_fields["name"].annotation)
STEPS = (
    "model.towers=[16, 16]",
    "train.epochs=6",
    "train.log_every=45",
    "train.keep_checkpoints=9",
    "optimizer.dense.learning_rate=0.003",
)


def _entries(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [entry for entry in lines if entry["kind"] == "train"]


@pytest.fixture(scope="module")
def with_actions(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    schema = replace(TEST_SCHEMA, tables=Tables(actions=("cart", "wish")))
    return Inputs(tmp_path_factory.mktemp("with_actions"), schema)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_learns_resumes_and_predicts(
    name: str, inputs: Inputs, with_actions: Inputs, tmp_path: Path
) -> None:
    inputs = with_actions if network_class(name).ACTIONS else inputs
    run, settings = tmp_path / "run", (f"model.name={name}", *STEPS)
    train(ONE_WORKER, inputs.options(run, *settings))
    entries = _entries(run)
    for loss in network_class(name).losses:
        assert all(np.isfinite(entry[f"loss_{loss}"]) for entry in entries)
    totals = [sum(w * e[f"loss_{k}"] for k, w in network_class(name).losses.items()) for e in entries]
    assert totals[-1] < 0.95 * totals[0]
    found = predictions_of(run, inputs.valid, tmp_path / "predictions")
    p_ctr, p_cvr, p_ctcvr = (np.array(found[task]) for task in ("p_ctr", "p_cvr", "p_ctcvr"))
    np.testing.assert_allclose(p_ctr * p_cvr, p_ctcvr, rtol=1e-5)
    assert len(np.unique(p_cvr)) > len(p_cvr) / 2
    assert_same_run(_resumed(inputs, run, tmp_path / "again", settings), run)


def _resumed(inputs: Inputs, whole: Path, path: Path, settings: tuple[str, ...]) -> Path:
    """The run cut off in its middle and taken up again."""
    shutil.copytree(whole, path)
    cut_off(path, 45)
    train(ONE_WORKER, inputs.options(path, "--resume", *settings))
    return path


def test_a_checkpoint_of_another_model_is_named(inputs: Inputs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(ONE_WORKER, inputs.options(run, "model.name=base", "train.keep_checkpoints=99"))
    cut_off(run, 15)
    with pytest.raises(InputError, match="other model.name: base -> mmoe"):
        train(ONE_WORKER, inputs.options(run, "--resume", "model.name=mmoe"))


def test_a_model_that_does_not_exist_is_told_with_those_that_do(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.name: .*'mmoe'.*found 'mmoo'"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", "model.name=mmoo"))


def test_esm2_refuses_samples_without_actions(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model esm2 .* expected a column action, found none"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", "model.name=esm2"))
    assert not (tmp_path / "run").exists()


def test_aman_refuses_samples_of_clicks_alone(inputs: Inputs, tmp_path: Path) -> None:
    clicked = tmp_path / "clicked"
    shutil.copytree(inputs.train, clicked)
    content = json.loads((clicked / MANIFEST_NAME).read_text())
    content["counts"]["clicks"] = content["counts"]["impressions"]
    (clicked / MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"model aman .* expected some, found \d+ impressions, all clicked"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", "model.name=aman", train=clicked))
    assert not (tmp_path / "run").exists()


def test_a_weight_of_a_loss_that_the_model_has_not_is_refused_before_anything_is_written(
    inputs: Inputs, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"loss\.task_weights\.cvr: model esmm has no such loss"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", "loss.task_weights.cvr=1"))
    assert not (tmp_path / "run").exists()
