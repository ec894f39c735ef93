"""Whose run a folder holds: nothing that took long to compute is lost, and two runs do not mix."""

import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from cli.errors import InputError
from esmm.checkpoints import run_folder
from esmm.checkpoints.files import complete_checkpoints, newest_checkpoint
from esmm.checkpoints.run_folder import RunFolder, require_shared
from esmm.checkpoints.state import read_state
from esmm.training_run import train
from storage import publishing
from tests.fixtures.runs import Inputs, assert_same_run, log_of
from tests.fixtures.sample_files import write_samples
from tests.fixtures.workers import ONE_WORKER, Command

BROKEN = ("optimizer.dense.learning_rate=1e30", "optimizer.sparse.learning_rate=1e30")  # it diverges


@pytest.fixture(scope="module")
def run(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of one worker. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(ONE_WORKER, inputs.options(folder))
    return folder


def _seed_of(run: Path) -> int:
    return read_state(newest_checkpoint(run)).config.train.seed


def test_a_complete_run_is_replaced_only_when_told(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    with pytest.raises(InputError, match="complete run.*--overwrite"):
        train(ONE_WORKER, inputs.options(copy))
    assert _seed_of(copy) == 42, "it is still there"
    train(ONE_WORKER, inputs.options(copy, "--overwrite", "train.seed=1"))
    assert _seed_of(copy) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"], "nothing is left beside it"


def test_a_run_that_replaces_another_leaves_it_usable_until_it_is_complete(
    run: Path, inputs: Inputs, tmp_path: Path
) -> None:
    copy, settings = shutil.copytree(run, tmp_path / "copy"), ["train.seed=1", "train.checkpoint_steps=2"]
    with pytest.raises(InputError, match="diverged"):
        train(ONE_WORKER, inputs.options(copy, "--overwrite", *settings, *BROKEN))
    assert (copy / "_SUCCESS").exists()
    assert (_seed_of(copy), log_of(copy)) == (42, log_of(run))
    train(ONE_WORKER, inputs.options(copy, "--overwrite", "--resume", *settings))
    assert (_seed_of(copy), len((copy / "command.txt").read_text().splitlines())) == (1, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"]


def test_a_replacement_that_cannot_go_on_begins_anew(
    run: Path, inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy, other = shutil.copytree(run, tmp_path / "copy"), tmp_path / "other"
    (copy / "_SUCCESS").unlink()
    write_samples(other, num_rows=40, seed=9)
    train(ONE_WORKER, inputs.options(copy, "--overwrite", "--resume", train=other))
    assert "starting anew, as --overwrite allows" in caplog.text and "--train: other files" in caplog.text
    train(ONE_WORKER, inputs.options(tmp_path / "fresh", train=other))
    assert_same_run(copy, tmp_path / "fresh")
    assert [path.name for path in (copy / "checkpoints").iterdir()] == [
        path.name for path in (tmp_path / "fresh" / "checkpoints").iterdir()
    ]


@pytest.mark.parametrize("killed_at", [0, 2])
def test_a_replacement_that_was_killed_before_it_took_its_place_takes_it(
    run: Path,
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    killed_at: int,
) -> None:
    """Its first rename finds the old run in the way, the second moves that aside, the third succeeds."""
    copy, rename, calls = shutil.copytree(run, tmp_path / "copy"), publishing.rename, list[str]()

    def killed(fs: Any, source: str, target: str) -> None:
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        calls.append(target)
        rename(fs, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            train(ONE_WORKER, inputs.options(copy, "--overwrite", "train.seed=1"))
    assert not copy.exists() or _seed_of(copy) == 42
    capsys.readouterr()
    train(ONE_WORKER, inputs.options(copy, "--overwrite", "--resume", "train.seed=1"))
    assert "it has taken the place of the run before" in capsys.readouterr().out
    assert _seed_of(copy) == 1 and (copy / "_SUCCESS").exists()
    assert not (tmp_path / ".copy.new").exists()


@pytest.mark.parametrize("more", [["--overwrite"], ["--overwrite", "--resume", "train.seed=1"]])
def test_what_a_run_replaces_stays_until_it_has_a_checkpoint(
    run: Path, inputs: Inputs, tmp_path: Path, more: list[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "_SUCCESS").unlink()
    for _ in range(2):  # the second one has nothing of its own to set aside
        with pytest.raises(InputError, match="diverged"):
            train(ONE_WORKER, inputs.options(copy, *more, *BROKEN))
        assert not complete_checkpoints(copy)
    with pytest.raises(InputError, match=r"unfinished run with checkpoint step-\d+ in \.former.*--overwrite"):
        train(ONE_WORKER, inputs.options(copy))
    kept = shutil.copytree(copy / ".former", tmp_path / "kept", ignore=shutil.ignore_patterns(".*"))
    assert_same_run(kept, run)
    train(ONE_WORKER, inputs.options(copy, *more))
    assert not (copy / ".former").exists()
    assert [path.name for path in copy.iterdir() if path.name.startswith(".")] == [".lock"]


@pytest.mark.parametrize("survived", range(5))
def test_a_kill_while_a_run_is_set_aside_loses_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "_SUCCESS").unlink()
    left, rename = [survived], Path.rename

    def killed(path: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.start(copy, overwrite=True)
    RunFolder.start(copy, resume=True).close()
    assert_same_run(copy, run)
    assert sorted(path.name for path in copy.iterdir()) == sorted(
        path.name for path in run.iterdir() if path.name != "_SUCCESS"
    )


def test_a_kill_before_what_was_replaced_is_removed(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "_SUCCESS").unlink()
    (copy / ".former" / "checkpoints" / "step-000001").mkdir(parents=True)
    train(ONE_WORKER, inputs.options(copy, "--resume"))
    assert not (copy / ".former").exists()
    assert_same_run(copy, run)


def test_an_unfinished_run_is_not_lost_by_mistake(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "_SUCCESS").unlink()
    with pytest.raises(InputError, match=r"unfinished run with checkpoint step-\d+.*--resume.*--overwrite"):
        train(ONE_WORKER, inputs.options(copy))
    train(ONE_WORKER, inputs.options(copy, "--overwrite", "train.seed=1"))
    assert _seed_of(copy) == 1


def test_a_run_that_came_to_nothing_makes_place(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "_SUCCESS").unlink()
    newest = newest_checkpoint(copy)
    newest.rename(newest.with_name(f".{newest.name}.partial"))
    train(ONE_WORKER, inputs.options(copy))
    assert log_of(copy) == log_of(run)
    assert [entry.name for entry in (copy / "checkpoints").iterdir()] == [newest.name]


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--resume"], ["--overwrite", "--resume"]])
def test_two_trainings_into_one_folder(inputs: Inputs, tmp_path: Path, more: list[str]) -> None:
    live = RunFolder.start(tmp_path / "run")
    with pytest.raises(InputError, match="another training run is writing there"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", *more))
    require_shared(live.path, live.token)  # workers that join the first one still find its folder
    live.close()
    RunFolder.start(tmp_path / "run").close()


def test_a_file_system_without_locks_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(InputError, match=r"cannot lock a file \(No locks available\).*Mount it with locks"):
        RunFolder.start(tmp_path / "run")


def test_foreign_files_are_left_alone(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="something else than a run"):
        train(ONE_WORKER, inputs.options(tmp_path, "--overwrite"))
    assert (tmp_path / "thesis.tex").exists()


def test_a_run_folder_that_another_worker_does_not_see_is_refused_at_the_start(
    inputs: Inputs, tmp_path: Path, command: Command
) -> None:
    """Its host has a disk of its own by that path."""
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    done = command("-m", "tests.programs.apart", tmp_path, *inputs.arguments(Path("run")), workers=2)
    output = done.stdout + done.stderr
    message = f"run: expected on {socket.gethostname()} the run folder that rank 0 writes, found nothing."
    assert output.count(f"error: {message}") == 1, output
    assert done.returncode == 1 and "epoch 1 step" not in output


def test_a_run_folder_is_told_by_what_rank_0_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "SHARED_SECONDS", 0.2)
    folder, other = (RunFolder.start(tmp_path / name) for name in ("run", "other"))
    require_shared(folder.path, folder.token)
    with pytest.raises(InputError, match="other: expected .* found another folder"):
        require_shared(other.path, folder.token)
