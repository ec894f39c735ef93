"""What predictions can have besides probabilities: kept fields, and a calibration applied."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.errors import InputError
from esmm.training_run import train
from schemas import calibration, predictions
from tests.fixtures.runs import Inputs, predictions_of, read_predictions
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows
from tests.fixtures.workers import ONE_WORKER, Command

KEPT = ("101", "109_14", "205", "210", "301")  # of the user and of impressions: one value, and several


@pytest.fixture(scope="module")
def run(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(ONE_WORKER, inputs.options(folder, "train.epochs=1"))
    return folder


def keep(*names: str) -> list[str]:
    return [word for name in names for word in ("--keep", name)]


def kept_of_samples(folder: Path) -> dict[int, dict[str, int]]:
    """Of each sample_id, what the samples' lists hold of the kept fields."""
    found: dict[int, dict[str, int]] = {}
    for row in read_rows(folder):
        for i, sample in enumerate(row["sample_id"]):
            found[sample] = {}
            for field in (TEST_SCHEMA.fields[TEST_SCHEMA.index[name]] for name in KEPT):
                if field.per_impression:
                    value = row[field.length_column if field.multi else field.column][i]
                else:
                    value = len(row[field.column]) if field.multi else row[field.column]
                found[sample][f"field_{field.name}"] = value
    return found


def test_kept_fields_are_those_of_the_samples(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    table = predictions_of(run, inputs.valid, tmp_path / "out", *keep(*KEPT))
    assert table.schema.equals(predictions.arrow_schema(TEST_SCHEMA, KEPT))
    names = [f"field_{name}" for name in KEPT]
    found = {row["sample_id"]: {name: row[name] for name in names} for row in table.to_pylist()}
    assert found == kept_of_samples(inputs.valid)
    assert all(len(set(table[name].to_pylist())) > 1 for name in names)
    assert predictions.read_manifest(str(tmp_path / "out"))["kept"] == list(KEPT)
    plain = predictions_of(run, inputs.valid, tmp_path / "plain")
    assert plain.equals(table.select(plain.column_names))
    assert "kept" not in predictions.read_manifest(str(tmp_path / "plain"))


def test_two_workers_keep_what_one_does(run: Path, inputs: Inputs, tmp_path: Path, command: Command) -> None:
    words = ["--run", run, "--samples", inputs.valid, "--out", tmp_path / "two", *keep(*KEPT)]
    predicted = command("-m", "esmm.predict", *words, workers=2)
    assert predicted.returncode == 0, predicted.stderr
    two = read_predictions(tmp_path / "two").sort_by("sample_id")
    one = predictions_of(run, inputs.valid, tmp_path / "one", *keep(*KEPT)).sort_by("sample_id")
    for name in (f"field_{name}" for name in KEPT):
        np.testing.assert_array_equal(two[name].to_numpy(), one[name].to_numpy())


@pytest.mark.parametrize(
    ("names", "message"),
    [(["3011"], "expected a field of ids.*did you mean 301"), (["301", "301"], "expected each field once")],
)
def test_fields_that_cannot_be_kept(
    run: Path, inputs: Inputs, tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predictions_of(run, inputs.valid, tmp_path / "out", *keep(*names))
    assert not (tmp_path / "out").exists()


LINES = {"ctr": (0.8, 0.3), "cvr": (1.3, -0.2)}  # a, b


def write_calibration(path: Path, run: Path, **changes: Any) -> str:
    manifest = {"predictions": "valid", "run": str(run), "step": 4}
    counts = {"rows": 9, "positives": 3, "log_loss_before": 0.5, "log_loss_after": 0.4}
    tasks = {task: {"a": a, "b": b, **counts} for task, (a, b) in LINES.items()}
    content = {"format": calibration.FORMAT, "tasks": tasks, "fitted_on": manifest, "written_by": "a test"}
    path.write_text(json.dumps({**content, **changes}))
    return str(path)


def test_a_calibration_is_applied(run: Path, inputs: Inputs, tmp_path: Path) -> None:
    file = write_calibration(tmp_path / "calibration.json", run)
    plain = predictions_of(run, inputs.valid, tmp_path / "plain")
    found = predictions_of(run, inputs.valid, tmp_path / "found", "--calibration", file)
    mended = {}
    for task, (a, b) in LINES.items():
        p = plain[f"p_{task}"].to_numpy().astype(np.float64)
        mended[task] = (1 / (1 + np.exp(-(a * np.log(p / (1 - p)) + b)))).astype(np.float32)
        q = found[f"p_{task}"].to_numpy()
        np.testing.assert_allclose(q, mended[task], rtol=2e-7)
        assert (np.diff(q[np.argsort(p)]) >= 0).all()
    np.testing.assert_array_equal(found["p_ctcvr"], found["p_ctr"].to_numpy() * found["p_cvr"].to_numpy())
    others = [name for name in plain.column_names if name not in predictions.PROBABILITIES]
    assert found.select(others).equals(plain.select(others))
    told = predictions.read_manifest(str(tmp_path / "found"))
    assert told["calibration"] == calibration.read(file)
    assert "calibration" not in predictions.read_manifest(str(tmp_path / "plain"))


def test_two_workers_calibrate_as_one(run: Path, inputs: Inputs, tmp_path: Path, command: Command) -> None:
    file = write_calibration(tmp_path / "calibration.json", run)
    words = ["--run", run, "--samples", inputs.valid, "--out", tmp_path / "two", "--calibration", file]
    predicted = command("-m", "esmm.predict", *words, workers=2)
    assert predicted.returncode == 0, predicted.stderr
    assert "was fitted to step 4" in predicted.stdout + predicted.stderr
    two = read_predictions(tmp_path / "two").sort_by("sample_id")
    one = predictions_of(run, inputs.valid, tmp_path / "one", "--calibration", file).sort_by("sample_id")
    for name in predictions.PROBABILITIES:
        np.testing.assert_allclose(two[name].to_numpy(), one[name].to_numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "expected a calibration of format 1, found 9"),
        ({"tasks": {"ctr": {"a": 1.0, "b": 0.0}}}, "expected for cvr a number a above 0.*found no such task"),
        ({"tasks": {"ctr": {"a": -1.0, "b": 0.0}}}, "expected for ctr .*found a=-1.0 and b=0.0"),
        ({"tasks": {"ctr": {"a": 1.0, "b": "0"}}}, "expected for ctr .*found a=1.0 and b='0'"),
        ({"tasks": None}, "expected a calibration, found another JSON file"),
    ],
)
def test_files_that_are_no_calibration(
    run: Path, inputs: Inputs, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_calibration(tmp_path / "calibration.json", run, **changes)
    with pytest.raises(InputError, match=message):
        predictions_of(run, inputs.valid, tmp_path / "out", "--calibration", file)
    assert not (tmp_path / "out").exists()
