"""A run that was cut off goes on as if nothing had happened, with any number of workers."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.errors import InputError
from esmm.checkpoints.files import complete_checkpoints, newest_checkpoint, step_of
from esmm.checkpoints.state import read_state
from esmm.training_run import train
from tests.fixtures.runs import (
    Inputs,
    assert_same_run,
    cut_off,
    forget_schema,
    log_of,
    predictions_of,
    rewrite_state,
)
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows, with_other_fields, write_samples
from tests.fixtures.workers import ONE_WORKER, Command

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
def whole(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of one worker. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(ONE_WORKER, inputs.options(folder, *SETTINGS))
    return folder


@pytest.fixture(scope="module")
def whole_of_two(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """The same with two workers."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    done = command("-m", "esmm.train", *inputs.arguments(folder, *SETTINGS), workers=2)
    assert done.returncode == 0, done.stderr
    return folder


def _steps(run: Path) -> list[int]:
    return [step_of(folder) for folder in complete_checkpoints(run)]


def _epoch_ends(run: Path) -> list[int]:
    return [entry["step"] for entry in log_of(run) if entry["kind"] == "epoch"]


def test_there_is_a_checkpoint_every_so_many_steps_and_at_each_epochs_end(whole: Path) -> None:
    ends = _epoch_ends(whole)
    assert _steps(whole) == sorted({*range(4, ends[-1] + 1, 4), *ends})


def test_there_is_a_checkpoint_whenever_so_much_time_has_passed(inputs: Inputs, tmp_path: Path) -> None:
    settings = ["train.checkpoint_minutes=1e-9", "train.keep_checkpoints=99", "train.epochs=1"]
    train(ONE_WORKER, inputs.options(tmp_path / "run", *settings))
    assert _steps(tmp_path / "run") == list(range(1, _epoch_ends(tmp_path / "run")[0] + 1))


def test_a_resumed_run_is_the_uninterrupted_one(whole: Path, inputs: Inputs, tmp_path: Path) -> None:
    end = _epoch_ends(whole)[0]
    for step in (4, end, end - end % 4 + 4):  # in the first epoch, at its end, in the second
        copy = shutil.copytree(whole, tmp_path / f"from_{step}")
        cut_off(copy, step)
        train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
        assert_same_run(copy, whole)
        assert (copy / "_SUCCESS").exists()


def test_dropout_and_batch_norm_go_on_alike_too(inputs: Inputs, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", [*SETTINGS, "model.dropout=0.3", "model.batch_norm=true"]
    train(ONE_WORKER, inputs.options(run, *settings))
    copy = shutil.copytree(run, tmp_path / "copy")
    cut_off(copy, 8)
    train(ONE_WORKER, inputs.options(copy, *settings, "--resume"))
    assert_same_run(copy, run)


def test_two_workers_resume_too(whole_of_two: Path, inputs: Inputs, tmp_path: Path, command: Command) -> None:
    copy = shutil.copytree(whole_of_two, tmp_path / "copy")
    cut_off(copy, 12)
    newest = newest_checkpoint(copy)
    shard = newest / "table-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    done = command("-m", "esmm.train", *inputs.arguments(copy, *SETTINGS, "--resume"), workers=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{shard}: damaged") == 1
    assert done.stderr.count("step-000008 instead.") == 1
    assert_same_run(copy, whole_of_two)


def test_two_workers_then_one_then_three_hold_the_same_model(
    whole_of_two: Path, inputs: Inputs, tmp_path: Path, command: Command
) -> None:
    """Rates that move nothing: the model that three workers end with is that of the two."""
    run = shutil.copytree(whole_of_two, tmp_path / "run")
    expected = predictions_of(run, inputs.valid, tmp_path / "of_two").sort_by("sample_id")
    settings = [*SETTINGS, *NO_MOVE, "optimizer.sparse.weight_decay=0", "optimizer.schedule.decay=none"]
    train(ONE_WORKER, inputs.options(run, *settings, "train.epochs=3", "--resume"))
    done = command(
        "-m", "esmm.train", *inputs.arguments(run, *settings, "train.epochs=4", "--resume"), workers=3
    )
    assert done.returncode == 0, done.stderr
    worlds = [read_state(folder).world_size for folder in complete_checkpoints(run)]
    assert sorted(set(worlds), key=worlds.index) == [2, 1, 3]
    found = predictions_of(run, inputs.valid, tmp_path / "of_three").sort_by("sample_id")
    assert found.equals(expected)


def test_another_number_of_workers_in_the_middle_of_an_epoch_trains_on_what_is_left(
    whole_of_two: Path, inputs: Inputs, tmp_path: Path
) -> None:
    run = shutil.copytree(whole_of_two, tmp_path / "run")
    cut_off(run, 8)
    before = read_state(newest_checkpoint(run)).position
    assert (before.epoch, [(leg.workers, leg.steps) for leg in before.legs]) == (1, [(2, 8)])
    train(ONE_WORKER, inputs.options(run, *SETTINGS, "--resume"))
    impressions = sum(len(row["sample_id"]) for row in read_rows(inputs.train))
    assert _epoch_ends(run)[0] == 8 + -(-(impressions - 8 * 32) // 32)


# ---- What may change and what may not --------------------------------------------------------------


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """A run that crashed after its checkpoint of step 4."""
    copy = shutil.copytree(whole, tmp_path / "cut")
    cut_off(copy, 4)
    return copy


@pytest.mark.parametrize(
    "setting",
    [
        "model.embedding_dim=6",
        "model.towers=[8]",
        "train.seed=7",
        "loader.shuffle_window=0",
        "optimizer.sparse.name=lazy_adam",
    ],
)
def test_what_the_stored_numbers_mean_cannot_change(cut: Path, inputs: Inputs, setting: str) -> None:
    name = setting.partition("=")[0].replace(".", r"\.")
    with pytest.raises(InputError, match=f"step-000004: cannot be continued with other {name}: .* -> "):
        train(ONE_WORKER, inputs.options(cut, *SETTINGS, setting, "--resume"))
    assert log_of(cut)[-1]["epoch"] == 2, "the log is untouched"


def test_other_training_files_are_refused(cut: Path, inputs: Inputs, tmp_path: Path) -> None:
    write_samples(tmp_path / "other", num_rows=60, seed=9)
    with pytest.raises(InputError, match="--train: other files"):
        train(ONE_WORKER, inputs.options(cut, *SETTINGS, "--resume", train=tmp_path / "other"))


def test_samples_of_another_schema_are_refused_with_a_way_out(
    cut: Path, inputs: Inputs, tmp_path: Path
) -> None:
    write_samples(tmp_path / "other", num_rows=10, hash_seed=5)
    changed = {"train": tmp_path / "other", "valid": tmp_path / "other"}
    with pytest.raises(InputError, match=r"another schema \(hash_seed: 0 -> 5\).*--warm-start"):
        train(ONE_WORKER, inputs.options(cut, *SETTINGS, "--resume", **changed))


def test_the_fields_that_another_schema_has_are_named(cut: Path, inputs: Inputs, tmp_path: Path) -> None:
    write_samples(tmp_path / "other", num_rows=10, schema=with_other_fields())
    changed = {"train": tmp_path / "other", "valid": tmp_path / "other"}
    told = "fields removed: 301; fields added: season; field 206: buckets 148 -> 157"
    with pytest.raises(InputError, match=f"another schema .{told}.*--warm-start"):
        train(ONE_WORKER, inputs.options(cut, *SETTINGS, "--resume", **changed))


def test_a_checkpoint_of_before_schemas_goes_on(whole: Path, cut: Path, inputs: Inputs) -> None:
    forget_schema(cut)
    train(ONE_WORKER, inputs.options(cut, *SETTINGS, "--resume"))
    assert_same_run(cut, whole)
    assert read_state(newest_checkpoint(cut)).schema["schema"] == TEST_SCHEMA.to_dict()


def test_options_that_may_change_are_named(
    cut: Path, inputs: Inputs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(ONE_WORKER, inputs.options(cut, *SETTINGS, "train.epochs=1", "train.batch_size=16", "--resume"))
    (line,) = (text for text in caplog.messages if "resuming" in text)
    assert line.endswith("with other options: train.batch_size: 32 -> 16; train.epochs: 2 -> 1")
    state = read_state(newest_checkpoint(cut))
    impressions = sum(len(row["sample_id"]) for row in read_rows(inputs.train))
    assert state.step == 4 + -(-(impressions - 4 * 32) // 16)
    assert "batch_size: 16" in (cut / "config.yaml").read_text()


def test_a_checkpoint_of_before_eps_was_an_option_goes_on_and_tells(
    cut: Path, inputs: Inputs, caplog: pytest.LogCaptureFixture
) -> None:
    def forget_eps(content: dict[str, Any]) -> None:
        del content["config"]["optimizer"]["sparse"]["eps"], content["progress"]["validated"]

    rewrite_state(cut, forget_eps)
    caplog.set_level(logging.INFO)
    train(ONE_WORKER, inputs.options(cut, *SETTINGS, "train.epochs=2", "--resume"))
    assert "with other options: optimizer.sparse.eps: 1e-08 -> None" in caplog.text
    assert (cut / "_SUCCESS").exists()


def test_a_smaller_distance_of_log_lines_holds_at_once(cut: Path, inputs: Inputs) -> None:
    """It is how the batch of a loss that is not finite is found: the first line must not be waited for."""
    train(ONE_WORKER, inputs.options(cut, *SETTINGS, "train.log_every=1", "train.epochs=1", "--resume"))
    lines = [entry["step"] for entry in log_of(cut) if entry["kind"] == "train"]
    assert lines == [3, *range(5, _epoch_ends(cut)[0] + 1)]


# ---- Nothing to resume from, nothing to resume -----------------------------------------------------


def test_without_a_checkpoint_it_starts_from_the_beginning(
    whole: Path, inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(ONE_WORKER, inputs.options(tmp_path / "run", *SETTINGS, "--resume"))
    assert sum("no checkpoint to resume from" in text for text in caplog.messages) == 1
    assert_same_run(tmp_path / "run", whole)


def test_a_complete_run_has_nothing_to_resume_unless_it_is_to_be_longer(
    whole: Path, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    train(ONE_WORKER, inputs.options(copy, *SETTINGS, "--resume"))
    assert "nothing to resume" in capsys.readouterr().out
    assert_same_run(copy, whole)
    constant = [text for text in SETTINGS if "schedule" not in text]
    train(ONE_WORKER, inputs.options(tmp_path / "short", *constant))
    train(ONE_WORKER, inputs.options(tmp_path / "short", *constant, "train.epochs=3", "--resume"))
    train(ONE_WORKER, inputs.options(tmp_path / "long", *constant, "train.epochs=3"))
    assert_same_run(tmp_path / "short", tmp_path / "long")
