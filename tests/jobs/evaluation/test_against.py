"""Two evaluations of the same impressions: paired differences, on real Spark."""

import json
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from cli.errors import InputError
from jobs.evaluate import check
from jobs.evaluation.run import Options
from schemas.metrics import COMPARED
from tests.fixtures import plain_metrics
from tests.jobs.test_evaluate import Columns, draw, run, scores_of, users_of, write_predictions


def another(columns: Columns, noise: float) -> Columns:
    """The same impressions and labels with other probabilities."""
    rng = np.random.default_rng(5)
    num = len(columns["click"])
    p_ctr = np.clip(columns["p_ctr"] + rng.normal(0, noise, num), 0.001, 0.9).astype(np.float32)
    p_cvr = np.clip(columns["p_cvr"] + rng.normal(0, noise, num), 0.001, 0.9).astype(np.float32)
    return columns | {"p_ctr": p_ctr, "p_cvr": p_cvr, "p_ctcvr": p_ctr * p_cvr}


@pytest.fixture(scope="module")
def both(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Columns, Columns]:
    """The folder of both evaluations, and the predictions of either; the second is held against the first."""
    folder = tmp_path_factory.mktemp("against")
    ours, _ = draw()
    theirs = another(ours, 0.2)
    run(spark, write_predictions(folder / "first" / "predictions", theirs))
    run(spark, write_predictions(folder / "second" / "predictions", ours), against=str(folder / "first"))
    return folder, ours, theirs


@pytest.mark.parametrize("task", ["ctr", "cvr", "ctcvr"])
def test_differences_are_paired_by_user(both: tuple[Path, Columns, Columns], task: str) -> None:
    folder, ours, theirs = both
    found = json.loads((folder / "second" / "metrics.json").read_text())["against"][task]
    sides = []
    for columns in (ours, theirs):
        label, p, _ = scores_of(task, (columns, draw()[1]))
        users = users_of(columns)[columns["click"] == 1 if task == "cvr" else slice(None)]
        sides.append(plain_metrics.figures(label, p, users))
    for name, ours_of in sides[0].items():
        theirs_of, difference = sides[1][name], found[name]
        assert difference["value"] == pytest.approx(ours_of.value - theirs_of.value, abs=1e-9)
        if ours_of.influences is not None and theirs_of.influences is not None:
            error = plain_metrics.Plain(0, ours_of.influences - theirs_of.influences).error
            assert difference["high"] - difference["value"] == pytest.approx(1.959964 * error, rel=1e-5)
            assert difference["smallest"] == pytest.approx(2.801585 * error, rel=1e-5)


def test_verdicts_say_in_which_direction(both: tuple[Path, Columns, Columns]) -> None:
    found = json.loads((both[0] / "second" / "metrics.json").read_text())["against"]["ctr"]
    assert found["auc"]["value"] > 0 and found["auc"]["verdict"] == "better"
    assert found["log_loss"]["value"] < 0 and found["log_loss"]["verdict"] == "better"
    for name in COMPARED:
        outside = not found[name]["low"] <= 0 <= found[name]["high"]
        if name != "calibration_ratio":
            assert (found[name]["verdict"] != "not distinguishable") == outside


def test_a_model_against_itself(
    spark: SparkSession, tmp_path: Path, both: tuple[Path, Columns, Columns]
) -> None:
    folder = write_predictions(tmp_path / "predictions", both[1], num_files=1)
    found = run(spark, folder, against=str(both[0] / "second" / "metrics.json"))["against"]
    for task in ("ctr", "cvr", "ctcvr"):
        for name in COMPARED:
            assert found[task][name]["value"] == pytest.approx(0, abs=1e-12)
            assert found[task][name]["verdict"] == "not distinguishable"


def test_other_impressions_or_labels_are_refused(
    spark: SparkSession, tmp_path: Path, both: tuple[Path, Columns, Columns]
) -> None:
    changed = both[1] | {"sample_id": both[1]["sample_id"] + 1}
    relabelled = both[1] | {"conversion": np.zeros(600, np.int8)}
    for number, columns in enumerate((changed, relabelled)):
        folder = write_predictions(tmp_path / str(number) / "predictions", columns)
        with pytest.raises(InputError, match="first/metrics.json: expected an evaluation of the imp"):
            run(spark, folder, against=str(both[0] / "first"))
        assert not (tmp_path / str(number) / "metrics.json").exists()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (None, r"metrics\.json: file not found"),
        ('{"ctr": {"auc": 0.7}}', "metrics.json: expected an evaluation of format 2, found another one"),
        ('{"format": 2}', "_manifest.json: file not found"),
    ],
)
def test_what_is_no_evaluation_is_refused_before_spark_starts(
    tmp_path: Path, metrics: str | None, message: str
) -> None:
    folder = write_predictions(tmp_path / "predictions", draw(30)[0])
    (tmp_path / "other").mkdir()
    if metrics is not None:
        (tmp_path / "other" / "metrics.json").write_text(metrics)
    with pytest.raises(InputError, match=message):
        check(Options(str(folder), str(tmp_path / "m.json"), None, str(tmp_path / "other"), []))
