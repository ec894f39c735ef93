"""What MLflow and TensorBoard hold of a run, read back by their own readers."""

import contextlib
import math
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli.errors import InputError
from esmm.config import Config, flatten
from esmm.training.tracking import RUN_ID_NAME, metrics, reports
from schemas.train_log import LogEntry


def _config(**tracking: Any) -> Config:
    return Config.model_validate({"tracking": tracking})


def _entry(step: int, **values: float | None) -> LogEntry:
    return cast(LogEntry, {"kind": "train", "epoch": 1, "step": step, **values})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after step 3 and went on from step 2, with one option changed."""
    path = tmp_path_factory.mktemp("runs") / ".demo.new"
    path.mkdir()
    target = path.with_name("demo")
    config = _config(mlflow={}, tensorboard=True)
    with contextlib.suppress(SystemExit), reports(config, path, target, 0) as report:
        for step in (1, 2, 3):
            report(_entry(step, loss_ctr=1 / step))
        sys.exit(143)
    changed = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 7})})
    with reports(changed, path, target, 2) as report:
        report(_entry(3, loss_ctr=0.25))
        report(_entry(4, loss_ctr=0.125, auc_ctr=0.75, auc_cvr=None))
    return path


def _store(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def _run(folder: Path) -> Run:
    return _store(folder).get_run((folder / RUN_ID_NAME).read_text().strip())


def test_mlflow_has_one_finished_run_of_both_parts(folder: Path) -> None:
    client, run = _store(folder), _run(folder)
    experiment = client.get_experiment_by_name("esmm")
    assert experiment is not None
    assert [found.info.run_id for found in client.search_runs([experiment.experiment_id])] == [
        run.info.run_id
    ]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "demo")
    assert run.data.tags["run_folder"] == str(folder.with_name("demo"))


def test_mlflow_has_the_configuration_and_what_resuming_has_changed(folder: Path) -> None:
    data = _run(folder).data
    assert data.params["train.epochs"] == "1"
    assert data.params["model.towers"] == "[360, 200, 80]"
    assert data.params.keys() == flatten(_config(mlflow={}).model_dump()).keys()
    assert data.tags["resumed_with.train.epochs"] == "7"
    assert [name for name in data.tags if name.startswith("resumed_with")] == ["resumed_with.train.epochs"]


def test_mlflow_has_the_metrics_by_step(folder: Path) -> None:
    client, run = _store(folder), _run(folder)
    history = client.get_metric_history(run.info.run_id, "train/loss_ctr")
    assert sorted((m.step, m.value) for m in history) == [(1, 1), (2, 0.5), (3, 0.25), (3, 1 / 3), (4, 0.125)]
    assert run.data.metrics == {"train/loss_ctr": 0.125, "validation/auc_ctr": 0.75}


def test_event_files_show_the_resumed_run_alone(folder: Path) -> None:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss_ctr", "validation/auc_ctr"}
    assert [(e.step, e.value) for e in events.Scalars("train/loss_ctr")] == [
        (1, 1),
        (2, 0.5),
        (3, 0.25),
        (4, 0.125),
    ]


def test_nothing_else_is_written(folder: Path) -> None:
    assert {entry.name for entry in folder.iterdir()} == {"mlflow.db", RUN_ID_NAME, "tensorboard"}
    assert not (folder / "mlruns").exists() and not Path("mlruns").exists()


@pytest.mark.parametrize(
    ("end", "status"),
    [(SystemExit(143), "KILLED"), (RuntimeError("out of memory"), "FAILED"), (None, "FINISHED")],
)
def test_the_status_says_how_a_run_ended(
    folder: Path, tmp_path: Path, end: BaseException | None, status: str
) -> None:
    config = _config(mlflow={"uri": f"sqlite:///{folder / 'mlflow.db'}", "experiment": "ends"})
    with contextlib.suppress(SystemExit, RuntimeError), reports(config, tmp_path, tmp_path, 0):
        if end:
            raise end
    run_id = (tmp_path / RUN_ID_NAME).read_text().strip()
    assert _store(folder).get_run(run_id).info.status == status


def test_without_the_options_nothing_happens(tmp_path: Path) -> None:
    with reports(Config(), tmp_path, tmp_path, 0) as report:
        report(_entry(1, loss_ctr=0.5))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "tracking", "option"),
    [
        ("mlflow", {"mlflow": {}}, r"tracking\.mlflow"),
        ("alembic", {"mlflow": {}}, r"tracking\.mlflow"),
        ("tensorboard", {"tensorboard": True}, r"tracking\.tensorboard"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    package: str, tracking: dict[str, Any], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it now fails as if it were not there
    wanted = rf"{option}: expected the Python package {package}, found none.*pip install .*tracking\.lock"
    with pytest.raises(InputError, match=wanted), reports(_config(**tracking), tmp_path, tmp_path, 0):
        pass


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "floppy://a"])
def test_a_store_that_is_not_there_is_named(uri: str, tmp_path: Path) -> None:
    config = _config(mlflow={"uri": uri})
    with (
        pytest.raises(InputError, match=rf"tracking\.mlflow\.uri: cannot use {uri}"),
        reports(config, tmp_path, tmp_path, 0),
    ):
        pass


def test_training_goes_on_where_mlflow_stops_answering(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "store.db"
    copy.write_bytes((folder / "mlflow.db").read_bytes())
    with reports(_config(mlflow={"uri": f"sqlite:///{copy}"}), tmp_path, tmp_path, 0) as report:
        copy.write_bytes(b"no database any more")
        report(_entry(5, loss_ctr=1.0))
    assert "MLflow has not taken step 5" in caplog.text
    assert "MLflow has not taken the end of the run" in caplog.text


def test_metrics_are_the_numbers_of_an_entry() -> None:
    found = metrics(_entry(3, loss_ctr=math.inf, auc_ctr=None, auc_cvr=0.5, grad_norm=2))
    assert found == {"train/loss_ctr": math.inf, "validation/auc_cvr": 0.5, "train/grad_norm": 2.0}
