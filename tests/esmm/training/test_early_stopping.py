"""Early stopping on the validation's CTCVR AUC, and the checkpoint that it chooses."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from cli.errors import InputError
from esmm.checkpoints.files import complete_checkpoints, newest_checkpoint, step_of
from esmm.checkpoints.state import read_state
from esmm.training.validation import auc
from esmm.training_run import train
from tests.fixtures.runs import Inputs, assert_same_run, cut_off, log_of, predictions_of
from tests.fixtures.workers import ONE_WORKER

PATIENCE = 3
SETTINGS = (
    "train.seed=0",  # its AUC rises before it falls
    "train.epochs=50",
    "train.validate_steps=4",
    f"train.early_stopping_patience={PATIENCE}",
    "train.checkpoint_steps=6",
)


@pytest.fixture(scope="module")
def stopped(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that early stopping has ended. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    train(ONE_WORKER, inputs.options(folder, *SETTINGS))
    return folder


def _validations(run: Path) -> list[tuple[int, float]]:
    return [(entry["step"], entry["auc_ctcvr"]) for entry in log_of(run) if "auc_ctcvr" in entry]


def test_the_run_ends_when_the_auc_has_not_risen_for_so_many_validations(stopped: Path) -> None:
    steps, aucs = zip(*_validations(stopped), strict=True)
    best = aucs.index(max(aucs))
    assert best >= 2, "the AUC rises at first"
    assert len(aucs) == best + 1 + PATIENCE, "it ends there"
    for end in range(best):  # and not earlier
        assert max(aucs[max(0, end - PATIENCE + 1) : end + 1]) > max(
            aucs[: max(0, end - PATIENCE + 1)], default=0
        )
    ends = {entry["step"] for entry in log_of(stopped) if entry["kind"] == "epoch"}
    assert set(steps) == ends | set(range(4, steps[-1] + 1, 4))
    assert (stopped / "_SUCCESS").exists()


def test_the_best_checkpoint_is_kept_and_predicts(stopped: Path, inputs: Inputs, tmp_path: Path) -> None:
    best_auc, best_step = max((score, -step) for step, score in _validations(stopped))
    kept = [step_of(folder) for folder in complete_checkpoints(stopped)]
    assert kept == [-best_step, _validations(stopped)[-1][0]], "beside the newest one"
    table = predictions_of(stopped, inputs.valid, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["step"] == -best_step
    labels = table["click"].to_numpy() * table["conversion"].to_numpy()
    assert auc(table["p_ctcvr"].to_numpy(), labels) == best_auc


def test_a_resumed_run_stops_where_the_uninterrupted_one_does(
    stopped: Path, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole"
    train(ONE_WORKER, inputs.options(whole, *SETTINGS, "train.keep_checkpoints=99"))
    last = _validations(whole)[-1][0]
    cut_off(whole, last - last % 6 - 6)
    train(ONE_WORKER, inputs.options(whole, *SETTINGS, "--resume"))
    assert_same_run(whole, stopped)
    capsys.readouterr()
    train(ONE_WORKER, inputs.options(whole, *SETTINGS, "--resume"))
    assert "nothing to resume" in capsys.readouterr().out


def test_a_best_checkpoint_that_is_damaged_is_not_replaced_without_a_word(
    stopped: Path, inputs: Inputs, tmp_path: Path
) -> None:
    copy = shutil.copytree(stopped, tmp_path / "copy")
    best, newest = complete_checkpoints(copy)
    (best / "dense.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=f"damaged.*best validation.*--checkpoint {newest.name}"):
        predictions_of(copy, inputs.valid, tmp_path / "out")
    predictions_of(copy, inputs.valid, tmp_path / "out", "--checkpoint", newest.name)


def test_turned_on_at_a_resume_it_chooses_among_what_is_kept_from_there(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The best validation lies before: no checkpoint was kept of it."""
    run, short = tmp_path / "run", ("train.seed=1", "train.epochs=2", "train.validate_steps=4")
    train(ONE_WORKER, inputs.options(run, *short))
    before = read_state(newest_checkpoint(run))
    assert complete_checkpoints(run) == [newest_checkpoint(run)] and before.progress.best_step == 4
    caplog.set_level(logging.INFO)
    longer = ("train.seed=1", "train.epochs=6", "train.validate_steps=4", "train.early_stopping_patience=5")
    train(ONE_WORKER, inputs.options(run, *longer, "--resume"))
    assert f"early stopping counts from step {before.step}" in caplog.text
    validations = [entry for entry in _validations(run) if entry[0] > before.step]
    predictions_of(run, inputs.valid, tmp_path / "out")
    step = json.loads((tmp_path / "out" / "_manifest.json").read_text())["step"]
    assert step == -max((score, -step) for step, score in validations)[1]


def test_validation_samples_without_conversions_cannot_decide(inputs: Inputs, tmp_path: Path) -> None:
    valid = shutil.copytree(inputs.valid, tmp_path / "valid")
    manifest = json.loads((valid / "_manifest.json").read_text())
    manifest["counts"]["conversions"] = 0
    (valid / "_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="expected conversions.*early_stopping_patience"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", *SETTINGS, valid=valid))
    assert not (tmp_path / "run").exists()


def test_it_says_why_it_ends(
    stopped: Path, inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(ONE_WORKER, inputs.options(tmp_path / "again", *SETTINGS))
    (line,) = (text for text in caplog.messages if text.startswith("early stopping"))
    best = max((score, -step) for step, score in _validations(stopped))[1]
    assert line == f"early stopping: {PATIENCE} validations without a CTCVR AUC above that of step {-best}"
