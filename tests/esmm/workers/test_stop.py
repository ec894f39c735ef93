"""SIGTERM: the step under way is finished, a checkpoint saved, and nothing of the run is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esmm import trainer
from esmm.checkpoints import writing
from esmm.checkpoints.files import complete_checkpoints, newest_checkpoint, step_of
from esmm.checkpoints.run_folder import RunFolder
from esmm.checkpoints.state import read_state
from esmm.training import validation
from esmm.training.train_step import TrainStep
from esmm.training_run import TrainOptions, train
from esmm.workers.stop import EXIT_STOPPED, Stop
from tests.fixtures.runs import Inputs, assert_same_run, log_of
from tests.fixtures.workers import ONE_WORKER, PROJECT, Command

# Without SIGTERM it would take hours.
SETTINGS = ("train.batch_size=8", "train.log_every=10", "train.epochs=100000")


def _stop_a_run(run: Path, arguments: list[str], launcher: list[str]) -> "subprocess.CompletedProcess[str]":
    """Start a run, and send SIGTERM to what was started when it trains."""
    binaries = Path(sys.executable).parent
    # One thread, as in this process: the last bits of a matrix product depend on their number.
    more = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **more}
    line = [*launcher, sys.executable, "-m", "esmm.train", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, cwd=PROJECT, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            log, deadline = run / "train.jsonl", time.monotonic() + 120
            while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 3):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def _epoch(run: Path) -> str:
    """The setting that ends a run with the epoch that its newest checkpoint is in."""
    return f"train.epochs={read_state(newest_checkpoint(run)).position.epoch}"


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(inputs: Inputs, tmp_path: Path) -> None:
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    done = _stop_a_run(run, inputs.arguments(run, *SETTINGS), [])
    assert done.returncode == EXIT_STOPPED == 143, done.stderr
    assert "told to stop: step" in done.stderr.splitlines()[-1] and "--resume" in done.stderr
    assert not (run / "_SUCCESS").exists()
    settings = [*SETTINGS, _epoch(run)]
    train(ONE_WORKER, inputs.options(run, *settings, "--resume"))
    train(ONE_WORKER, inputs.options(whole, *settings))
    assert_same_run(run, whole)


def _stop_in_a_validation(options: TrainOptions) -> None:
    """Train until SIGTERM comes as the first validation begins."""
    stop = Stop()

    def stopped_at_once(*arguments: Any) -> dict[str, float | None] | None:
        stop.requested = True
        return validation.validation_auc(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "validation_auc", stopped_at_once)
        with pytest.raises(SystemExit) as caught:
            train(replace(ONE_WORKER, stop=stop), options)
    assert caught.value.code == EXIT_STOPPED


def _stop_after_step(step: int, options: TrainOptions) -> None:
    """Train until SIGTERM comes in a step."""
    stop, take = Stop(), TrainStep.__call__

    def stopping(trained: TrainStep, *rest: Any) -> Any:
        losses = take(trained, *rest)
        stop.requested = trained.step == step
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", stopping)
        with pytest.raises(SystemExit):
            train(replace(ONE_WORKER, stop=stop), options)


def test_a_stop_in_a_validation_loses_nothing_either(inputs: Inputs, tmp_path: Path) -> None:
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    _stop_in_a_validation(inputs.options(run))
    assert [entry["kind"] for entry in log_of(run)].count("epoch") == 0
    train(ONE_WORKER, inputs.options(run, "--resume"))
    train(ONE_WORKER, inputs.options(whole))
    assert_same_run(run, whole)


@pytest.mark.parametrize("moment", ["before", "in"])
def test_a_validation_inside_an_epoch_that_a_stop_has_kept_from_happening_is_made_up_for(
    inputs: Inputs, tmp_path: Path, moment: str
) -> None:
    """It would have been the best, so early stopping and the model it chooses depend on it."""
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    settings = ("train.seed=1", "train.validate_steps=4", "train.early_stopping_patience=5")
    train(ONE_WORKER, inputs.options(whole, *settings))
    best = read_state(newest_checkpoint(whole)).progress.best_step
    assert best == 4
    if moment == "in":
        _stop_in_a_validation(inputs.options(run, *settings))
    else:
        _stop_after_step(4, inputs.options(run, *settings))
    assert read_state(newest_checkpoint(run)).step == 4
    assert not [entry for entry in log_of(run) if entry["kind"] == "validation"]
    train(ONE_WORKER, inputs.options(run, *settings, "--resume"))
    assert_same_run(run, whole)
    assert read_state(newest_checkpoint(run)).progress.best_step == best
    assert [path.name for path in complete_checkpoints(run)] == [
        path.name for path in complete_checkpoints(whole)
    ]


def test_a_step_is_saved_once_only_where_nothing_has_changed(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in the validation of a step that is saved anyway: a launcher's patience is short."""
    saved, save = list[int](), writing.save

    def counted(*arguments: Any) -> Path:
        path = save(*arguments)
        saved.append(step_of(path))
        return path

    monkeypatch.setattr(writing, "save", counted)
    settings = ("train.checkpoint_steps=4", "train.validate_steps=8")
    _stop_in_a_validation(inputs.options(tmp_path / "run", *settings))
    assert saved == [4, 8]


@pytest.mark.parametrize("killed_at", ["first rename", "second rename", "removal"])
def test_a_kill_while_a_step_is_saved_again_leaves_a_checkpoint(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """The epoch's end is saved before its validation, where a run was stopped in that, and after it."""
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    _stop_in_a_validation(inputs.options(run))
    names = [path.name for path in complete_checkpoints(run)]
    calls, rename, remove = list[str](), Path.rename, shutil.rmtree

    def killing_rename(path: Path, target: Path) -> Path:
        calls.append(f"{'second' if calls else 'first'} rename")
        if killed_at == calls[-1]:
            raise KeyboardInterrupt
        return rename(path, target)

    def killing_remove(path: Path, ignore_errors: bool = False) -> None:
        if killed_at == "removal" and len(calls) == 2:
            raise KeyboardInterrupt
        remove(path, ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killing_rename)
        patch.setattr(shutil, "rmtree", killing_remove)
        with pytest.raises(KeyboardInterrupt):
            train(ONE_WORKER, inputs.options(run, "--resume"))
    RunFolder.start(run, resume=True).close()
    assert [path.name for path in complete_checkpoints(run)] == names
    train(ONE_WORKER, inputs.options(run, "--resume"))
    train(ONE_WORKER, inputs.options(whole))
    assert_same_run(run, whole)


@pytest.mark.slow
def test_two_workers_stop_between_the_same_two_steps(
    inputs: Inputs, tmp_path: Path, command: Command
) -> None:
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    horovodrun = [str(Path(sys.executable).parent / "horovodrun"), "-np", "2", "-H", "localhost:2"]
    done = _stop_a_run(run, inputs.arguments(run, *SETTINGS), horovodrun)
    assert "told to stop: step" in done.stderr
    assert done.returncode == 1 and "Exit code: 143" in done.stderr, "horovodrun itself ends with 1"
    settings = [*SETTINGS, _epoch(run)]
    for folder, more in ((run, ["--resume"]), (whole, [])):
        trained = command("-m", "esmm.train", *inputs.arguments(folder, *settings, *more), workers=2)
        assert trained.returncode == 0, trained.stderr
    assert_same_run(run, whole)
