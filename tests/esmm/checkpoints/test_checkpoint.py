"""Checkpoints are whole or passed over, and those of another format are refused."""

import json
import logging
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cli.errors import EXIT_BAD_INPUT, InputError
from esmm.checkpoints import choosing
from esmm.checkpoints.files import complete_checkpoints, newest_checkpoint, step_of
from esmm.checkpoints.state import DamagedError
from esmm.training_run import train
from esmm.workers.world import World
from tests.fixtures.runs import Inputs, assert_same_run, cut_off, predictions_of
from tests.fixtures.workers import ONE_WORKER
from tests.jobs.sample_writer.test_full_disk import run_with_small_disk

SETTINGS = ("train.checkpoint_steps=4", "train.keep_checkpoints=3")
FORMAT_1 = Path(__file__).parents[2] / "fixtures" / "run_v1"


@pytest.fixture(scope="module")
def whole(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of one worker. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(ONE_WORKER, inputs.options(folder, *SETTINGS))
    return folder


def _names(run: Path) -> list[str]:
    return sorted(entry.name for entry in (run / "checkpoints").iterdir())


# ---- Damage ----------------------------------------------------------------------------------------


def _flip_a_byte(newest: Path) -> None:
    path = newest / "table-00000-of-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _truncate(newest: Path) -> None:
    path = newest / "dense.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _lose_a_file(newest: Path) -> None:
    (newest / "dense.safetensors").unlink()


def _lose_the_state(newest: Path) -> None:
    (newest / "state.json").unlink()


def _change_the_state(newest: Path) -> None:
    path = newest / "state.json"
    text = path.read_text()
    assert '"scale": 1.0' in text
    path.write_text(text.replace('"scale": 1.0', '"scale": 2.0'))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_flip_a_byte, "table-00000-of-00001.safetensors: damaged"),
        (_truncate, "dense.safetensors: damaged"),
        (_lose_a_file, "dense.safetensors: file not found"),
        (_lose_the_state, "state.json: file not found"),
        (_change_the_state, "state.json: expected the description.*checksum"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_in_one_line(
    whole: Path,
    inputs: Inputs,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    named: str,
) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    *_, before, newest = complete_checkpoints(copy)
    (copy / "_SUCCESS").unlink()
    damage(newest)
    caplog.set_level(logging.WARNING)
    train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    (line,) = caplog.messages
    assert line.startswith(f"{newest}/{named.partition('.*')[0]}") and named.rpartition(".*")[2] in line
    assert line.endswith(f"Using {before} instead.")
    assert_same_run(copy, whole)
    assert _names(copy) == _names(whole), "the damaged one is gone"


def test_predictions_pass_over_a_damaged_checkpoint_too(
    whole: Path, inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    *_, before, newest = complete_checkpoints(copy)
    _flip_a_byte(newest)
    found = predictions_of(copy, inputs.valid, tmp_path / "found")
    expected = predictions_of(whole, inputs.valid, tmp_path / "expected", "--checkpoint", before.name)
    assert found.equals(expected)
    assert f"Using {before} instead." in caplog.text
    with pytest.raises(InputError, match="SHA-256"):
        predictions_of(copy, inputs.valid, tmp_path / "named", "--checkpoint", newest.name)


def test_where_all_are_damaged_nothing_is_resumed(whole: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    (copy / "_SUCCESS").unlink()
    for folder in complete_checkpoints(copy):
        _truncate(folder)
    with pytest.raises(InputError, match=r"dense\.safetensors: damaged"):
        train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    assert _names(copy) == _names(whole)


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["", "step-{}/state.json", "step-{}/table-00000-of-00001.safetensors"])
def test_what_cannot_be_read_is_not_damaged(
    whole: Path, inputs: Inputs, tmp_path: Path, name: str, more: list[str]
) -> None:
    """A link to itself: opening it fails, as on a network folder that is away. Nothing must change."""
    copy, aside = shutil.copytree(whole, tmp_path / "copy"), tmp_path / "aside"
    cut_off(copy, step_of(complete_checkpoints(copy)[1]))
    path, before = copy / "checkpoints" / name.format(newest_checkpoint(copy).name[5:]), _names(copy)
    path.rename(aside)
    path.symlink_to(path)
    with pytest.raises(InputError, match=r"cannot be read \(Too many levels of symbolic links\)"):
        train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume", *more))
    path.unlink()
    aside.rename(path)
    assert _names(copy) == before
    train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume", *more))
    assert_same_run(copy, whole)


@dataclass(frozen=True)
class _OneOfTwo(World):
    """A worker on one machine beside a worker on another that finds every file, and no damage."""

    def agree(self) -> AbstractContextManager[None]:
        return nullcontext()

    def all_reduce_(self, tensors: list[torch.Tensor], name: str) -> None:
        for tensor in tensors:
            tensor.add_(1)


@pytest.mark.parametrize("name", ["state.json", "dense.safetensors"])
def test_a_machine_without_the_run_folder_is_no_damage(whole: Path, tmp_path: Path, name: str) -> None:
    world = _OneOfTwo(2, 1, 0, 1, torch.device("cpu"))
    folder = shutil.copytree(newest_checkpoint(whole), tmp_path / "step-1")
    choosing.checked(folder, world)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name}: found by 1 of 2 workers only") as caught:
        choosing.checked(folder, world)
    assert not isinstance(caught.value, DamagedError)


def test_a_half_written_checkpoint_does_not_count(whole: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    *_, before, newest = complete_checkpoints(copy)
    cut_off(copy, step_of(before))
    partial = newest.with_name(f".{newest.name}.partial")
    partial.mkdir()
    (partial / "table-00000-of-00001.safetensors").write_bytes(b"half")
    train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    assert_same_run(copy, whole)
    assert _names(copy) == _names(whole)


def test_another_checkpoint_can_be_predicted_with(whole: Path, inputs: Inputs, tmp_path: Path) -> None:
    first = complete_checkpoints(whole)[0].name
    newest = predictions_of(whole, inputs.valid, tmp_path / "newest")
    older = predictions_of(whole, inputs.valid, tmp_path / "older", "--checkpoint", first)
    assert not older["p_ctr"].equals(newest["p_ctr"])
    step = json.loads((tmp_path / "older" / "_manifest.json").read_text())["step"]
    assert first == f"step-{step:06d}"
    with pytest.raises(InputError, match=f"--checkpoint step-7: expected one of {first}, "):
        predictions_of(whole, inputs.valid, tmp_path / "none", "--checkpoint", "step-7")


# ---- A disk that takes no more ---------------------------------------------------------------------


@contextmanager
def _longest_file(num_bytes: int) -> Iterator[None]:
    """Writing more into a file fails, as on a full disk; by the kernel, in this process only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_where_a_checkpoint_cannot_be_written_the_one_before_survives(
    whole: Path, inputs: Inputs, tmp_path: Path
) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    kept = complete_checkpoints(copy)[0]
    cut_off(copy, step_of(kept))
    with (
        _longest_file(20_000),
        pytest.raises(InputError, match=f"could not be saved.*whole: {kept.name}.*--resume"),
    ):
        train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    assert _names(copy) == [kept.name], "nothing half-written is left"
    train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    assert_same_run(copy, whole)


def test_a_log_that_cannot_be_written_is_one_message(whole: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    cut_off(copy, step_of(complete_checkpoints(copy)[0]))
    with (
        _longest_file(10),
        pytest.raises(InputError, match=r"cannot be written \(File too large\).*--resume"),
    ):
        train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    assert_same_run(copy, whole)


def test_the_log_is_on_the_disk_before_the_checkpoint_it_leads_to(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves of it is what was synced: no run may go on from a step that its log lacks."""
    run, on_disk, sync, rename = tmp_path / "run", dict[Path, bytes](), os.fsync, Path.rename

    def recorded(descriptor: int) -> None:
        sync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name == "train.jsonl":
            on_disk[path] = path.read_bytes()

    def checked(path: Path, target: Path) -> Path:
        assert on_disk[run / "train.jsonl"] == (run / "train.jsonl").read_bytes()
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Path, "rename", checked)
    train(ONE_WORKER, inputs.options(run, *SETTINGS))
    assert on_disk


@pytest.mark.parametrize("tail", [b"\0\0\0\n\0", b'{"kind": "tr', b"\xff\n"])
def test_what_a_power_cut_has_left_of_later_lines_is_passed_over(
    whole: Path, inputs: Inputs, tmp_path: Path, tail: bytes
) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    cut_off(copy, step_of(complete_checkpoints(copy)[-2]))
    log = copy / "train.jsonl"
    log.write_bytes(log.read_bytes() + tail)
    train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    assert_same_run(copy, whole)


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_what_was_saved_before_is_there(
    whole: Path, inputs: Inputs, tmp_path: Path
) -> None:
    """On a real disk, of some checkpoints' size."""
    size = sum(file.stat().st_size for file in newest_checkpoint(whole).iterdir())
    arguments = inputs.arguments(
        tmp_path / "disk" / "run", "train.checkpoint_steps=2", "train.keep_checkpoints=99"
    )
    command = [sys.executable, "-m", "esmm.train", *arguments]
    done = run_with_small_disk(tmp_path / "disk", f"{4 * size // 1024}k", command)
    if done.returncode == 99:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    message = done.stderr.splitlines()[-1]
    assert "could not be saved" in message and "No space left on device" in message
    assert "Checkpoints that are whole: step-000002" in message
    assert done.returncode == EXIT_BAD_INPUT and "Traceback" not in done.stderr


# ---- Other formats ---------------------------------------------------------------------------------


@pytest.fixture
def first_format(tmp_path: Path) -> Path:
    """A run of before checkpoints knew a position in the data."""
    return shutil.copytree(FORMAT_1, tmp_path / "format_1")


def test_a_checkpoint_of_another_format_is_refused(
    first_format: Path, inputs: Inputs, tmp_path: Path
) -> None:
    refused = r"step-000002: expected a checkpoint of format 2, found format 1: .* Train again"
    with pytest.raises(InputError, match=refused):
        predictions_of(first_format, inputs.valid, tmp_path / "out")
    with pytest.raises(InputError, match=refused):
        train(ONE_WORKER, inputs.options(tmp_path / "new", "--warm-start", str(first_format)))
    (first_format / "_SUCCESS").unlink()
    with pytest.raises(InputError, match=refused):
        train(ONE_WORKER, inputs.options(first_format, *SETTINGS, "--resume"))
    assert _names(first_format) == ["step-000002"]


def test_a_run_of_another_format_makes_place_where_it_may_be_replaced(
    whole: Path, first_format: Path, inputs: Inputs
) -> None:
    (first_format / "_SUCCESS").unlink()
    train(ONE_WORKER, inputs.options(first_format, *SETTINGS, "--overwrite", "--resume"))
    assert_same_run(first_format, whole)
