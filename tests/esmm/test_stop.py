"""SIGTERM: the step under way is finished, a checkpoint saved, and nothing of the run is lost."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esmm import trainer
from esmm.checkpoints import checkpoint
from esmm.train import train
from esmm.training import scoring
from esmm.workers.distributed import EXIT_STOPPED, Stop
from tests.esmm.runs import Inputs, assert_same_run, log_of
from tests.esmm.workers import ONE_WORKER, PROJECT, Command

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
    return f"train.epochs={checkpoint.read_state(checkpoint.latest(run)).position.epoch}"


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(inputs: Inputs, tmp_path: Path) -> None:
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    done = _stop_a_run(run, inputs.arguments(run, *SETTINGS), [])
    assert done.returncode == EXIT_STOPPED == 143, done.stderr
    assert "told to stop: step" in done.stderr.splitlines()[-1] and "--resume" in done.stderr
    assert not (run / "_SUCCESS").exists()
    settings = [*SETTINGS, _epoch(run)]
    train(ONE_WORKER, inputs.arguments(run, *settings, "--resume"))
    train(ONE_WORKER, inputs.arguments(whole, *settings))
    assert_same_run(run, whole)


def test_a_stop_in_a_validation_loses_nothing_either(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    stop = Stop()

    def stopped_at_once(*arguments: Any) -> dict[str, float | None] | None:
        stop.requested = True
        return scoring.validation_auc(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validation_auc", stopped_at_once)
        with pytest.raises(SystemExit) as caught:
            train(replace(ONE_WORKER, stop=stop), inputs.arguments(run))
    assert caught.value.code == EXIT_STOPPED
    assert [entry["kind"] for entry in log_of(run)].count("epoch") == 0
    train(ONE_WORKER, inputs.arguments(run, "--resume"))
    train(ONE_WORKER, inputs.arguments(whole))
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
