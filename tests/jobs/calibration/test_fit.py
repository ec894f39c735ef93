"""The fit of a calibration on real Spark, against scikit-learn, and what it answers to bad input."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from cli.errors import InputError
from jobs.calibration import sums
from jobs.fit_calibration import check, fit
from schemas import calibration
from schemas.predictions import arrow_schema
from schemas.samples import MANIFEST_NAME
from storage.publishing import SUCCESS_NAME
from tests.fixtures.ali_ccp import ALI_CCP

Columns = dict[str, npt.NDArray[Any]]


def draw(n: int = 4000, a: float = 0.6, b: float = -0.8) -> Columns:
    """Predictions that are wrong: the labels follow sigmoid(a logit(p) + b) for both tasks."""
    rng = np.random.default_rng(5)
    p_ctr, p_cvr = (rng.beta(2, 3, n).astype(np.float32) for _ in range(2))
    true_ctr, true_cvr = (calibration.calibrated(p.astype(np.float64), a, b) for p in (p_ctr, p_cvr))
    click = rng.random(n) < true_ctr
    conversion = click & (rng.random(n) < true_cvr)
    return {
        "sample_id": np.arange(n),
        "click": click.astype(np.int8),
        "conversion": conversion.astype(np.int8),
        "p_ctr": p_ctr,
        "p_cvr": p_cvr,
        "p_ctcvr": p_ctr * p_cvr,
    }


def write(folder: Path, columns: Columns, parts: int = 2, **told: Any) -> str:
    folder.mkdir()
    n = len(columns["sample_id"])
    named = {"context_id": [f"{i:016x}" for i in range(n)], "user_id": [None] * n}
    table = pa.table({**named, **columns}).select(arrow_schema(ALI_CCP).names).cast(arrow_schema(ALI_CCP))
    for part in range(parts):
        begin, end = (n * k // parts for k in (part, part + 1))
        pq.write_table(table.slice(begin, end - begin), folder / f"part-{part:05d}.parquet")
    (folder / MANIFEST_NAME).write_text(json.dumps({"rows": n, **told}))
    (folder / SUCCESS_NAME).touch()
    return str(folder)


def tasks_of(columns: Columns) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    clicked = columns["click"] == 1
    return {
        "ctr": (columns["p_ctr"].astype(np.float64), columns["click"]),
        "cvr": (columns["p_cvr"][clicked].astype(np.float64), columns["conversion"][clicked]),
    }


def calibration_error(p: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Mean distance of predicted and found rates over ten equal bins."""
    order = np.array_split(np.argsort(p, kind="stable"), 10)
    return sum(len(part) * abs(p[part].mean() - labels[part].mean()) for part in order) / len(p)


def test_the_line_is_that_of_scikit_learn_and_mends(spark: SparkSession, tmp_path: Path) -> None:
    columns = draw()
    path = write(tmp_path / "predictions", columns, run="runs/x", step=7)
    check(path)
    found = fit(spark, path)
    assert found["fitted_on"] == {"predictions": path, "run": "runs/x", "step": 7}
    for task, (p, labels) in tasks_of(columns).items():
        line = found["tasks"][task]
        expected = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000, solver="newton-cholesky")
        expected.fit(np.log(p / (1 - p))[:, None], labels)
        assert line["a"] == pytest.approx(expected.coef_[0, 0], abs=1e-6)
        assert line["b"] == pytest.approx(expected.intercept_[0], abs=1e-6)
        assert (line["rows"], line["positives"]) == (len(labels), labels.sum())
        q = calibration.calibrated(p, line["a"], line["b"])
        assert line["log_loss_before"] == pytest.approx(log_loss(labels, p), rel=1e-9)
        assert line["log_loss_after"] == pytest.approx(log_loss(labels, q), rel=1e-9)
        assert line["log_loss_after"] < line["log_loss_before"]
        assert calibration_error(q, labels) < calibration_error(p, labels) / 3
        assert roc_auc_score(labels, q) == roc_auc_score(labels, p)


def test_how_rows_are_dealt_changes_nothing_but_rounding(spark: SparkSession, tmp_path: Path) -> None:
    path = write(tmp_path / "predictions", draw())
    (tmp_path / "parted").mkdir()
    parted = write(tmp_path / "parted" / "predictions", draw(), parts=7)
    one, many = (sums.summed(sums.packed(spark, name), [(0.7, -0.5)] * 2) for name in (path, parted))
    for left, right in zip(one, many, strict=True):
        assert left.loss == pytest.approx(right.loss, rel=1e-13)
        np.testing.assert_allclose(left.hessian, right.hessian, rtol=1e-13)
        np.testing.assert_allclose(left.gradient, right.gradient, atol=1e-10)


def test_probabilities_of_0_and_1_are_taken_as_their_neighbours(spark: SparkSession, tmp_path: Path) -> None:
    columns = draw()
    columns["p_ctr"][:4], columns["click"][:4], columns["conversion"][:4] = (0, 1, 0, 1), (0, 1, 1, 0), 0
    columns["p_ctcvr"] = columns["p_ctr"] * columns["p_cvr"]
    line = fit(spark, write(tmp_path / "predictions", columns))["tasks"]["ctr"]
    assert line["a"] > 0 and all(math.isfinite(x) for x in (line["b"], line["log_loss_after"]))


def no_conversions(columns: Columns) -> None:
    columns["conversion"][:] = 0


def turned(columns: Columns) -> None:
    columns["p_ctr"] = 1 - columns["p_ctr"]


def parted(columns: Columns) -> None:
    columns["p_ctr"] = np.where(columns["click"] == 1, 0.7, 0.2).astype(np.float32)


def constant(columns: Columns) -> None:
    columns["p_ctr"][:] = 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_conversions, "expected cvr with positives and negatives .*found 0 positives of"),
        (turned, "expected p_ctr to rise with its labels .*found a = -"),
        (parted, "expected ctr with .*a probability that parts all"),
        (constant, "expected ctr with .*a probability that parts all"),
    ],
)
def test_what_has_no_line(spark: SparkSession, tmp_path: Path, change: Any, message: str) -> None:
    columns = draw(400)
    change(columns)
    columns["p_ctcvr"] = columns["p_ctr"] * columns["p_cvr"]
    with pytest.raises(InputError, match=message):
        fit(spark, write(tmp_path / "predictions", columns))


def test_calibrated_predictions_are_not_fitted_again(tmp_path: Path) -> None:
    path = write(tmp_path / "predictions", draw(50), calibration={"format": 1})
    with pytest.raises(InputError, match="found calibrated ones"):
        check(path)


def test_rows_that_break_a_rule_stop_it(spark: SparkSession, tmp_path: Path) -> None:
    columns = draw(400)
    columns["p_cvr"][7] = np.nan
    with pytest.raises(InputError, match="expected p_cvr in .0, 1., found 1 of 400 rows"):
        fit(spark, write(tmp_path / "predictions", columns))
