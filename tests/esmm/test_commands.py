"""esmm.train and esmm.predict from end to end, and what they answer to bad input."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cli.errors import EXIT_BAD_INPUT, InputError
from cli.version import WRITTEN_BY
from esmm.checkpoints.files import newest_checkpoint
from esmm.checkpoints.state import read_state
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.training.validation import auc
from esmm.training_run import train
from schemas import predictions
from schemas.train_log import LogEntry
from tests.fixtures.runs import Inputs, forget_schema, log_of, predictions_of, read_predictions
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows, with_other_fields, write_samples
from tests.fixtures.workers import ONE_WORKER, Command


@pytest.fixture(scope="module")
def run(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of one worker."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(ONE_WORKER, inputs.options(folder))
    return folder


def test_a_run_folder_tells_what_made_it(run: Path, inputs: Inputs) -> None:
    names = {"config.yaml", "versions.json", "command.txt", "train.jsonl", "checkpoints", "_SUCCESS", ".lock"}
    assert {entry.name for entry in run.iterdir()} == names
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["seed"] == 42
    assert (
        (run / "command.txt").read_text().startswith(f"python -m esmm.train --config {inputs.config} --train")
    )
    versions = json.loads((run / "versions.json").read_text())
    assert versions["torch"].startswith("2.") and versions["written_by"] == WRITTEN_BY
    assert len(list((run / "checkpoints").iterdir())) == 1, "keep_checkpoints is 1"
    entries = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    epochs = [entry for entry in entries if entry["kind"] == "epoch"]
    assert [entry["epoch"] for entry in epochs] == [1, 2]
    assert read_state(newest_checkpoint(run)).step == epochs[-1]["step"]
    assert entries[0].keys() == {
        "kind", "epoch", "step", "loss_ctr", "loss_ctcvr", "grad_norm", "impressions_per_second",
        "loader_share", "skipped_impressions", "learning_rate_dense", "learning_rate_sparse",
    }  # fmt: skip
    written = {key for entry in entries for key in entry}
    of_other_models = {"loss_cvr", "loss_ctavr", "loss_auxiliary"}
    assert {entry["kind"] for entry in entries} == {"train", "epoch"}
    assert written | of_other_models == set(LogEntry.__annotations__)


def test_predictions_are_every_impression_once_with_its_labels(
    run: Path, inputs: Inputs, tmp_path: Path
) -> None:
    table = predictions_of(run, inputs.valid, tmp_path / "out")
    assert table.schema.equals(predictions.arrow_schema(TEST_SCHEMA))
    expected = {
        sample: (row["context_id"], row["user_id"], row["click"][i], row["conversion"][i])
        for row in read_rows(inputs.valid)
        for i, sample in enumerate(row["sample_id"])
    }
    keys = ["context_id", "user_id", "click", "conversion"]
    found = {row["sample_id"]: tuple(row[key] for key in keys) for row in table.to_pylist()}
    assert found == expected and table.num_rows == len(expected)
    p_ctr, p_cvr, p_ctcvr = (table[name].to_numpy() for name in ("p_ctr", "p_cvr", "p_ctcvr"))
    assert p_ctr.std() > 0
    np.testing.assert_allclose(p_ctcvr, p_ctr * p_cvr, rtol=1e-6)
    made = predictions.read_manifest(str(tmp_path / "out"))
    files = {path.name: pq.read_metadata(path).num_rows for path in (tmp_path / "out").glob("*.parquet")}
    assert {file["name"]: file["rows"] for file in made["files"]} == files
    assert made["rows"] == sum(files.values()) == len(expected) and made["written_by"] == WRITTEN_BY
    assert made["schema"] == TEST_SCHEMA.to_dict()
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_the_logged_auc_is_that_of_the_predictions(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    table = predictions_of(run, inputs.valid, tmp_path / "out")
    names = ("p_ctr", "p_cvr", "p_ctcvr", "click", "conversion")
    p_ctr, p_cvr, p_ctcvr, click, conversion = (table[name].to_numpy() for name in names)
    last = log_of(run)[-1]
    assert last["auc_ctr"] == auc(p_ctr, click)
    assert last["auc_cvr"] == auc(p_cvr[click == 1], conversion[click == 1])
    assert last["auc_ctcvr"] == auc(p_ctcvr, click * conversion)


def test_the_same_seed_gives_the_same_bits(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    train(ONE_WORKER, inputs.options(tmp_path / "again"))
    first, second = (read_state(newest_checkpoint(folder)) for folder in (run, tmp_path / "again"))
    assert first.sha256 == second.sha256
    tables = [
        predictions_of(folder, inputs.valid, tmp_path / f"out_{folder.name}")
        for folder in (run, tmp_path / "again")
    ]
    assert tables[0].equals(tables[1])


def test_two_workers_train_and_predict(inputs: Inputs, tmp_path: Path, command: Command) -> None:
    run, out = tmp_path / "two", tmp_path / "out"
    trained = command("-m", "esmm.train", *inputs.arguments(run), workers=2)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("validation AUC") == 1, "rank 0 alone sums up"
    names = {path.name for path in newest_checkpoint(run).glob("table-*")}
    assert names == {"table-00000-of-00002.safetensors", "table-00001-of-00002.safetensors"}
    predicted = command(
        "-m", "esmm.predict", "--run", run, "--samples", inputs.valid, "--out", out, workers=2
    )
    assert predicted.returncode == 0, predicted.stderr
    two = read_predictions(out).sort_by("sample_id")
    one = predictions_of(run, inputs.valid, tmp_path / "one").sort_by("sample_id")
    assert len(list(out.glob("part-*.parquet"))) == 2
    assert two["sample_id"].equals(one["sample_id"])
    np.testing.assert_allclose(two["p_ctcvr"].to_numpy(), one["p_ctcvr"].to_numpy(), rtol=1e-5)


# ---- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_is_one_message_and_exit_code_2(
    inputs: Inputs, tmp_path: Path, command: Command, workers: int
) -> None:
    arguments = inputs.arguments(tmp_path / "run", valid=tmp_path / "nowhere")
    done = command("-m", "esmm.train", *arguments, workers=workers)
    message = f"error: {tmp_path / 'nowhere'}: expected a folder of samples, found nothing."
    assert done.stderr.count(message) == 1
    assert 'esmm/train.py"' not in done.stderr, "no traceback of ours"
    # horovodrun itself ends with 1 and names the worker's exit code.
    assert done.returncode == (EXIT_BAD_INPUT if workers == 1 else 1)
    assert workers == 1 or f"Exit code: {EXIT_BAD_INPUT}" in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was written"


def _other_samples(folder: Path, **options: Any) -> Path:
    write_samples(folder, num_rows=10, **options)
    return folder


def test_samples_that_do_not_fit_each_other_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    other = _other_samples(tmp_path / "other", hash_seed=5)
    with pytest.raises(InputError, match="hash_seed: 0 -> 5"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", valid=other))
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_trained_stops_the_run(inputs: Inputs, tmp_path: Path) -> None:
    settings = ["optimizer.dense.learning_rate=1e30", "optimizer.sparse.learning_rate=1e30"]
    with pytest.raises(InputError, match="training diverged.*learning_rate"):
        train(ONE_WORKER, inputs.options(tmp_path / "run", *settings))
    assert not (tmp_path / "run" / "_SUCCESS").exists()
    assert not (tmp_path / "run" / "checkpoints").exists(), "no checkpoint of a broken model"


Damage = Callable[[Path], object]


def _without_success(run: Path) -> None:
    (run / "_SUCCESS").unlink()


def _without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def _with_another_network(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("embedding_dim: 4", "embedding_dim: 6"))


def _with_a_flipped_byte(run: Path) -> None:
    path = newest_checkpoint(run) / "table-00000-of-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _without_a_shard(run: Path) -> None:
    (newest_checkpoint(run) / "table-00000-of-00001.safetensors").unlink()


def _with_broken_state(run: Path) -> None:
    (newest_checkpoint(run) / "state.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_success, "expected a complete run"),
        (_without_checkpoints, "expected a checkpoint"),
        (_with_another_network, "another model.*embedding_dim: expected 6, found 4"),
        (_with_a_flipped_byte, "SHA-256"),
        (_without_a_shard, "file not found"),
        (_with_broken_state, "state.json"),
        (shutil.rmtree, "expected a run folder, found nothing"),
    ],
)
def test_a_broken_run_predicts_nothing(
    run: Path, inputs: Inputs, tmp_path: Path, damage: Damage, message: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    damage(copy)
    with pytest.raises(InputError, match=message):
        predictions_of(copy, inputs.valid, tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"copy"}, "nothing half-written"


def test_samples_of_other_hash_settings_are_not_predicted(run: Path, tmp_path: Path) -> None:
    other = _other_samples(tmp_path / "other", hash_seed=5)
    with pytest.raises(InputError, match=r"other samples \(hash_seed: 0 -> 5\)"):
        predictions_of(run, other, tmp_path / "out")


def test_samples_of_other_fields_are_not_predicted_and_the_fields_named(run: Path, tmp_path: Path) -> None:
    other = _other_samples(tmp_path / "other", schema=with_other_fields())
    told = "fields removed: 301; fields added: season; field 206: buckets 148 -> 157"
    with pytest.raises(InputError, match=f"other samples .{told}."):
        predictions_of(run, other, tmp_path / "out")


def test_a_run_of_before_schemas_predicts_the_same(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    forget_schema(copy)
    found = predictions_of(copy, inputs.valid, tmp_path / "out")
    assert found.equals(predictions_of(run, inputs.valid, tmp_path / "expected"))


def test_predictions_are_replaced_only_when_told(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    first = predictions_of(run, inputs.valid, tmp_path / "out")
    with pytest.raises(InputError, match="a complete output"):
        predictions_of(run, inputs.train, tmp_path / "out")
    assert read_predictions(tmp_path / "out").equals(first)
    assert predictions_of(run, inputs.train, tmp_path / "out", "--overwrite").num_rows != first.num_rows
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"], "no staging folder is left"


def test_predictions_do_not_replace_the_run_they_are_made_of(
    run: Path, inputs: Inputs, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for out in (copy, copy.parent, inputs.valid):
        with pytest.raises(InputError, match="expected nothing, an empty folder or predictions to replace"):
            predictions_of(copy, inputs.valid, out, "--overwrite")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_unreadable_samples_leave_no_predictions(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    broken = shutil.copytree(inputs.valid, tmp_path / "broken")
    file = next(broken.glob("part-*.parquet"))
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(InputError, match=file.name):
        predictions_of(run, broken, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["broken"]


def damage(file: Path) -> int:
    """Make the first row group unreadable; its impressions."""
    sample_ids = pq.ParquetFile(file).read_row_group(0, ["sample_id"])["sample_id"].to_pylist()
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\xff" * 3900 + content[4000:])
    return sum(map(len, sample_ids))


SKIPPING = ("loader.skip_broken_row_groups=true", "loader.shuffle_window=16")


def test_what_is_skipped_is_counted(
    inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In each line of the log, and of the run in the last line printed; too much of it stops the run."""
    train_samples, valid = tmp_path / "train", tmp_path / "valid"
    shutil.copytree(inputs.train, train_samples)
    shutil.copytree(inputs.valid, valid)
    lost, lost_valid = damage(train_samples / "part-00001.parquet"), damage(valid / "part-00000.parquet")
    changed = {"train": train_samples, "valid": valid}
    more = (*SKIPPING, "loader.max_broken_share=1")
    train(ONE_WORKER, inputs.options(tmp_path / "run", *more, **changed))
    entries = log_of(tmp_path / "run")
    assert sum(entry["skipped_impressions"] for entry in entries if entry["kind"] == "train") == 2 * lost
    validations = [entry["skipped_validation_impressions"] for entry in entries if entry["kind"] == "epoch"]
    assert validations == [lost_valid, lost_valid]
    assert f"; {2 * lost} impressions of broken row groups were skipped" in capsys.readouterr().out
    with pytest.raises(InputError, match=rf"max_broken_share .* found {lost} of"):
        train(ONE_WORKER, inputs.options(tmp_path / "other", *SKIPPING, train=train_samples))
    with pytest.raises(InputError, match=rf"valid: .*max_broken_share .* found {lost_valid} of"):
        train(ONE_WORKER, inputs.options(tmp_path / "other", *SKIPPING, valid=valid))


def test_what_all_workers_skip_is_counted(inputs: Inputs, tmp_path: Path, command: Command) -> None:
    """Each of two workers lacks no more than may be left out, both together do."""
    samples = tmp_path / "train"
    shutil.copytree(inputs.train, samples)
    lost = [damage(file) for file in sorted(samples.glob("*.parquet"))]
    options = {"batch_size": 32, "world_size": 2, "shuffle_window": 16}

    def readers(seed: int) -> list[bool]:
        """Whether rank 0 reads them, in the first epoch."""
        loader = Loader(str(samples), seed=seed, **options)  # type: ignore[arg-type]
        mine = [group for window in loader.plan(Position.start(1)).windows[0] for group in window.groups]
        return [
            any((group.file, group.index) == (f"part-0000{i}.parquet", 0) for group in mine) for i in (0, 1)
        ]

    seed = next(seed for seed in range(50) if sum(readers(seed)) == 1)
    share = (max(lost) + 0.5) / Loader(str(samples), batch_size=32).manifest["counts"]["impressions"]
    more = (*SKIPPING, f"loader.max_broken_share={share}", f"train.seed={seed}")
    arguments = inputs.arguments(tmp_path / "run", *more, train=samples)
    done = command("-m", "esmm.train", *arguments, workers=2)
    assert done.returncode != 0
    (found,) = re.findall(r"max_broken_share .*, found (\d+) of", done.stderr)  # by one rank, for all
    assert max(lost) < int(found) <= sum(lost)
