"""Evaluation from published predictions to metrics.json, against scikit-learn and numpy."""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from cli.errors import InputError
from cli.version import WRITTEN_BY
from jobs.evaluate import check, cut_of
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.inputs import check_paths
from jobs.evaluation.rankings import NUM_BINS
from jobs.evaluation.run import Options, evaluate
from jobs.session import task_errors_as_input_errors
from schemas.predictions import arrow_schema
from schemas.samples import MANIFEST_NAME
from schemas.schema import Schema
from storage.publishing import SUCCESS_NAME
from tests.fixtures import plain_metrics
from tests.fixtures.ali_ccp import ALI_CCP
from tests.fixtures.shop import SHOP_OF_TEXT

PROJECT = Path(__file__).resolve().parents[2]
Columns = dict[str, Any]
Change = Callable[[Path], None]

(CUT,) = EvaluateConfig(user_bounds=(10, 20)).cuts


def draw(n: int = 600) -> tuple[Columns, Columns]:
    """Predictions and truth of n impressions; scores with ties."""
    rng = np.random.default_rng(1)
    true_ctr, true_cvr = rng.uniform(0.05, 0.6, n), rng.uniform(0.05, 0.7, n)
    click = rng.random(n) < true_ctr
    conversion = click & (rng.random(n) < true_cvr)
    p_ctr = np.round(np.clip(true_ctr + rng.normal(0, 0.1, n), 0.01, 0.99), 2).astype(np.float32)
    p_cvr = np.round(np.clip(true_cvr + rng.normal(0, 0.2, n), 0.01, 0.99), 2).astype(np.float32)
    sample_id = rng.permutation(n) + 1
    predictions = {
        "sample_id": sample_id,
        "context_id": [f"{i // 7:016x}" for i in range(n)],
        "user_id": [None if i % 10 == 0 else i * i % 41 for i in range(n)],
        "click": click.astype(np.int8),
        "conversion": conversion.astype(np.int8),
        "p_ctr": p_ctr,
        "p_cvr": p_cvr,
        "p_ctcvr": p_ctr * p_cvr,
    }
    return predictions, {"sample_id": sample_id, "p_ctr": true_ctr, "p_cvr": true_cvr}


def as_text(columns: Columns) -> Columns:
    """The same with sample ids, and user ids if there are any, that are text which CSV has to quote."""
    named: Columns = {"sample_id": [f'n° "{number}", a' for number in columns["sample_id"]]}
    if "user_id" in columns:
        named["user_id"] = [None if user is None else f"user {user}" for user in columns["user_id"]]
    return columns | named


def write_predictions(folder: Path, columns: Columns, num_files: int = 2, schema: Schema = ALI_CCP) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    table = pa.table(columns, schema=arrow_schema(schema).remove_metadata())
    files = []
    for index, rows in enumerate(np.array_split(np.arange(table.num_rows), num_files)):
        pq.write_table(table.take(pa.array(rows)), folder / f"part-{index}.parquet")
        files.append({"name": f"part-{index}.parquet", "rows": len(rows)})
    (folder / MANIFEST_NAME).write_text(json.dumps({"rows": table.num_rows, "files": files}))
    (folder / SUCCESS_NAME).touch()
    return folder


def write_truth(file: Path, columns: Columns) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("sample_id", "p_ctr", "p_cvr"))
        writer.writerows(zip(*(columns[name] for name in ("sample_id", "p_ctr", "p_cvr")), strict=True))
    return file


def run(
    spark: SparkSession, predictions: Path, truth: Path | None = None, against: str | None = None
) -> Columns:
    """What metrics.json holds after one evaluation; paths are checked as the command does."""
    out = predictions.parent / "metrics.json"
    options = Options(str(predictions), str(out), str(truth) if truth else None, against, [CUT])
    check(options)
    with task_errors_as_input_errors():
        evaluate(spark, options)
    return json.loads(out.read_text())


def expected_pair_auc(scores: np.ndarray, weight: np.ndarray) -> float:
    """Weighted AUC over all n^2 pairs: row i is weight[i] positives and 1 - weight[i] negatives."""
    wins = (scores[:, None] > scores[None, :]) + 0.5 * (scores[:, None] == scores[None, :])
    pairs = weight[:, None] * (1 - weight)[None, :]
    return float((wins * pairs).sum() / pairs.sum())


@pytest.fixture(scope="module")
def drawn() -> tuple[Columns, Columns]:
    return draw()


@pytest.fixture(scope="module")
def metrics(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Columns, Columns]
) -> Columns:
    folder = tmp_path_factory.mktemp("evaluate")
    predictions, truth = drawn
    write_truth(folder / "truth_test.csv", truth)
    return run(spark, write_predictions(folder / "predictions", predictions), folder / "truth_*.csv")


def scores_of(task: str, drawn: tuple[Columns, Columns]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, predicted and true probability of the impressions a task is judged on."""
    p, t = drawn
    clicked = p["click"] == 1
    return {
        "ctr": (p["click"], p["p_ctr"], t["p_ctr"]),
        "cvr": (p["conversion"][clicked], p["p_cvr"][clicked], t["p_cvr"][clicked]),
        "ctcvr": (p["click"] * p["conversion"], p["p_ctcvr"], t["p_ctr"] * t["p_cvr"]),
    }[task]


def test_the_file_says_what_wrote_it(metrics: Columns) -> None:
    assert metrics["written_by"] == WRITTEN_BY


Z = 1.959963984540054


def users_of(predictions: Columns) -> np.ndarray:
    """A user per impression; contexts without one are users of their own."""
    pairs = zip(predictions["user_id"], predictions["context_id"], strict=True)
    return np.array([f"c{context}" if user is None else f"u{user}" for user, context in pairs])


@pytest.mark.parametrize("task", ["ctr", "cvr", "ctcvr"])
def test_figures_equal_the_plain_way(task: str, metrics: Columns, drawn: tuple[Columns, Columns]) -> None:
    """Values of scikit-learn and numpy; errors from the matrix of all pairs and from difference quotients."""
    label, predicted, _ = scores_of(task, drawn)
    users = users_of(drawn[0])[drawn[0]["click"] == 1 if task == "cvr" else slice(None)]
    expected = plain_metrics.figures(label, predicted, users)
    expected["gauc"], expected["gauc_equal"], with_both = plain_metrics.gaucs(label, predicted, users)
    found = metrics[task]
    assert (found["rows"], found["positives"]) == (len(label), label.sum())
    assert (found["users"], found["gauc_users"]) == (len(np.unique(users)), with_both)
    assert found["mean_predicted"] == pytest.approx(predicted.astype(np.float64).mean(), abs=1e-9)
    assert found["mean_actual"] == label.mean()
    for name, figure in expected.items():
        assert found[name]["value"] == pytest.approx(figure.value, abs=1e-9), name
        if figure.influences is not None:
            assert (found[name]["value"] - found[name]["low"]) / Z == pytest.approx(figure.error, rel=1e-6), (
                name
            )


@pytest.mark.parametrize("task", ["ctr", "cvr", "ctcvr"])
def test_ece_over_bins_of_equal_mass(task: str, metrics: Columns, drawn: tuple[Columns, Columns]) -> None:
    label, predicted, _ = scores_of(task, drawn)
    found = metrics[task]
    expected = plain_metrics.ece(label, predicted, NUM_BINS)
    assert found["ece"]["value"] == pytest.approx(expected, abs=1e-9)
    bins = found["curves"]["calibration"]
    assert sum(part["rows"] for part in bins) == len(label)
    assert sum(part["positives"] for part in bins) == label.sum()
    assert sum(part["rows"] * abs(part["mean_predicted"] - part["mean_actual"]) for part in bins) / len(
        label
    ) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("task", ["ctr", "cvr", "ctcvr"])
def test_baselines(task: str, metrics: Columns, drawn: tuple[Columns, Columns]) -> None:
    label, predicted, true = scores_of(task, drawn)
    rate = np.full(len(label), label.mean())
    found = metrics[task]["baselines"]
    for name, scores in (("constant", rate), ("truth", true.astype(np.float32).astype(np.float64))):
        assert found[name] == pytest.approx(
            {
                "auc": roc_auc_score(label, scores),
                "pr_auc": average_precision_score(label, scores),
                "log_loss": log_loss(label, scores),
                "normalised_entropy": log_loss(label, scores) / log_loss(label, rate),
                "brier": brier_score_loss(label, scores),
                "calibration_ratio": scores.sum() / label.sum(),
            },
            abs=1e-9,
        )
    share = (roc_auc_score(label, predicted) - 0.5) / (found["truth"]["auc"] - 0.5)
    assert metrics[task]["share_of_best"] == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("task", ["ctr", "cvr", "ctcvr"])
def test_curves_are_points_of_the_exact_ones(
    task: str, metrics: Columns, drawn: tuple[Columns, Columns]
) -> None:
    label, predicted, _ = scores_of(task, drawn)
    thresholds = [predicted >= score for score in np.unique(predicted)]
    exact = {(hit[label == 0].mean(), hit[label == 1].mean()) for hit in thresholds} | {(0.0, 0.0)}
    curves = metrics[task]["curves"]
    roc = [tuple(point) for point in curves["roc"]]
    assert set(roc) <= exact and roc == sorted(roc) and roc[0] == (0, 0) and roc[-1] == (1, 1)
    precisions = {(label[hit].sum() / label.sum(), label[hit].mean()) for hit in thresholds}
    assert {tuple(point) for point in curves["pr"]} <= precisions
    assert sum(part["rows"] for part in curves["histogram"]) == len(label)
    assert all(
        part["rows"] == ((predicted >= part["low"]) & (predicted < part["high"])).sum()
        for part in curves["histogram"]
    )


def test_slices_by_the_impressions_of_a_user(metrics: Columns, drawn: tuple[Columns, Columns]) -> None:
    _, index, sizes = np.unique(users_of(drawn[0]), return_inverse=True, return_counts=True)
    own = sizes[index]
    label, predicted, _ = scores_of("ctr", drawn)
    (slicing,) = metrics["slicings"]
    expected = {"0 to 10": own <= 10, "11 to 20": (own > 10) & (own <= 20), "21 or more": own > 20}
    assert [part["label"] for part in slicing["slices"]] == list(expected)
    for part in slicing["slices"]:
        rows, found = expected[part["label"]], part["ctr"]
        assert (found["rows"], found["positives"]) == (rows.sum(), label[rows].sum())
        assert found["auc"]["value"] == pytest.approx(roc_auc_score(label[rows], predicted[rows]), abs=1e-9)
        ratio = predicted[rows].astype(np.float64).sum() / label[rows].sum()
        assert found["calibration_ratio"]["value"] == pytest.approx(ratio, abs=1e-9)
        if len(np.unique(index[rows])) > 1:
            assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
        else:
            assert found["auc"]["reason"] == "one group of users alone: no interval"


def test_slices_by_kept_fields(spark: SparkSession, tmp_path: Path, drawn: tuple[Columns, Columns]) -> None:
    """By each value, and by ranges."""
    folder = write_predictions(tmp_path / "predictions", drawn[0], num_files=1)
    position = np.arange(600, dtype=np.int32) % 7
    (file,) = folder.glob("*.parquet")
    pq.write_table(pq.read_table(file).append_column("field_301", pa.array(position)), file)
    cuts = [cut_of("301"), cut_of("301:1,4")]
    options = Options(str(folder), str(tmp_path / "metrics.json"), None, None, cuts)
    check(options)
    by_value, by_range = evaluate(spark, options)["slicings"]
    assert [part["label"] for part in by_value["slices"]] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [part["label"] for part in by_range["slices"]] == ["0 to 1", "2 to 4", "5 or more"]
    label, predicted, _ = scores_of("ctr", drawn)
    expected = [position == value for value in range(7)]
    expected += [position <= 1, (position > 1) & (position <= 4), position > 4]
    for part, rows in zip(by_value["slices"] + by_range["slices"], expected, strict=True):
        assert part["ctr"]["rows"] == rows.sum()
        auc = roc_auc_score(label[rows], predicted[rows])
        assert part["ctr"]["auc"]["value"] == pytest.approx(auc, abs=1e-9)


def test_a_field_that_was_not_kept(spark: SparkSession, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "predictions", draw(30)[0])
    with pytest.raises(
        InputError, match="expected columns field_301, found none. Predict again with --keep 301"
    ):
        evaluate(spark, Options(str(folder), str(tmp_path / "m.json"), None, None, [cut_of("301")]))


@pytest.mark.parametrize("text", ["", ":10", "205:10,x", "205:20,10", "205:10,10"])
def test_slices_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected FIELD or FIELD:10,20,50"):
        cut_of(text)


def test_cvr_on_all_impressions_is_judged_by_the_truth(
    metrics: Columns, drawn: tuple[Columns, Columns]
) -> None:
    predictions, truth = drawn
    p_cvr, true, clicked = predictions["p_cvr"].astype(np.float64), truth["p_cvr"], predictions["click"] == 1
    found = metrics["cvr_all_impressions"]
    # True probabilities are rounded to 2^-20 where they serve as weights.
    assert found["auc"] == pytest.approx(expected_pair_auc(p_cvr, true), abs=1e-6)
    assert found["best_auc"] == pytest.approx(expected_pair_auc(true, true), abs=1e-6)
    p_unclicked, true_unclicked = p_cvr[~clicked], true[~clicked]
    own, best = (expected_pair_auc(p, true_unclicked) for p in (p_unclicked, true_unclicked))
    assert found["unclicked_auc"] == pytest.approx(own, abs=1e-6)
    assert found["best_unclicked_auc"] == pytest.approx(best, abs=1e-6)
    for name, rows in {"all": clicked | True, "clicked": clicked, "unclicked": ~clicked}.items():
        expected = {"rows": rows.sum(), "mean_predicted": p_cvr[rows].mean(), "mean_true": true[rows].mean()}
        assert found[name] == pytest.approx(expected, abs=1e-9)


def test_same_bytes_whatever_the_files_and_their_order(
    spark: SparkSession, tmp_path: Path, drawn: tuple[Columns, Columns]
) -> None:
    predictions, truth = drawn
    truth_file = write_truth(tmp_path / "truth.csv", truth)
    order = np.random.default_rng(3).permutation(len(predictions["click"]))
    shuffled = {name: [values[i] for i in order] for name, values in predictions.items()}
    written = []
    for columns, num_files in ((predictions, 1), (shuffled, 5)):
        run(spark, write_predictions(tmp_path / "predictions", columns, num_files), truth_file)
        written.append((tmp_path / "metrics.json").read_bytes())
    assert written[0] == written[1]


def test_without_conversions_the_auc_is_null_with_a_reason(spark: SparkSession, tmp_path: Path) -> None:
    predictions, _ = draw(50)
    predictions["conversion"] = np.zeros(50, np.int8)
    found = run(spark, write_predictions(tmp_path / "predictions", predictions))
    for task in ("cvr", "ctcvr"):
        for name in ("auc", "pr_auc", "calibration_ratio", "normalised_entropy"):
            assert found[task][name]["value"] is None and found[task][name]["low"] is None
            assert found[task][name]["reason"].startswith("no positives among ")
        assert found[task]["gauc"]["reason"] == "no user has both classes"
        assert found[task]["log_loss"]["value"] > 0
        assert found[task]["curves"]["roc"] == []
    assert "reason" not in found["ctr"]["auc"] and "truth" not in found["ctr"]["baselines"]
    assert "cvr_all_impressions" not in found


def test_without_clicks_cvr_has_no_rows(spark: SparkSession, tmp_path: Path) -> None:
    predictions, _ = draw(20)
    predictions["click"] = predictions["conversion"] = np.zeros(20, np.int8)
    found = run(spark, write_predictions(tmp_path / "predictions", predictions))["cvr"]
    assert (found["rows"], found["mean_predicted"], found["mean_actual"]) == (0, None, None)
    assert found["log_loss"] == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "no impressions to judge",
    }


def test_probabilities_of_zero_and_one_cost_as_their_float32_neighbours(
    spark: SparkSession, tmp_path: Path
) -> None:
    predictions, _ = draw(4)
    predictions |= {
        "click": np.array([1, 1, 0, 0], np.int8),
        "conversion": np.zeros(4, np.int8),
        "p_ctr": np.array([0.0, 1.0, 0.0, 1.0], np.float32),
    }
    predictions["p_ctcvr"] = predictions["p_ctr"] * predictions["p_cvr"]
    found = run(spark, write_predictions(tmp_path / "predictions", predictions))["ctr"]["log_loss"]["value"]
    above_zero = np.nextafter(np.float32(0), np.float32(1), dtype=np.float32).astype(np.float64)
    below_one = np.nextafter(np.float32(1), np.float32(0), dtype=np.float32).astype(np.float64)
    costs = [-np.log(above_zero), -np.log(below_one), -np.log1p(-above_zero), -np.log(1 - below_one)]
    assert found == pytest.approx(np.mean(costs), abs=1e-9)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "p_ctr",
            np.nan,
            r"expected p_ctr in \[0, 1\], found 1 of 30 rows without, for example sample_id \d+: NaN",
        ),
        ("p_ctcvr", 1.5, r"expected p_ctcvr in \[0, 1\], found 1 of 30 .*: 1.5"),
        ("p_cvr", -0.1, r"expected p_cvr in \[0, 1\], found 1 of 30 .*: -0.1"),
        ("click", 2, "expected click 0 or 1, found 1 of 30 .*: 2"),
        ("conversion", -1, "expected conversion 0 or 1, found 1 of 30 .*: -1"),
    ],
)
def test_impossible_values(
    spark: SparkSession, tmp_path: Path, column: str, value: float, message: str
) -> None:
    predictions, _ = draw(30)
    predictions[column][11] = value
    with pytest.raises(InputError, match=message):
        run(spark, write_predictions(tmp_path / "predictions", predictions))
    assert not (tmp_path / "metrics.json").exists()


def test_conversion_without_click(spark: SparkSession, tmp_path: Path) -> None:
    predictions, _ = draw(30)
    predictions["click"][:] = 0
    predictions["conversion"][:] = 0
    predictions["conversion"][:2] = 1
    with pytest.raises(
        InputError, match=r"conversion=1 only with click=1, found 2 of 30 .*click=0 conversion=1"
    ):
        run(spark, write_predictions(tmp_path / "predictions", predictions))


def test_ids_that_are_text(
    spark: SparkSession, tmp_path: Path, metrics: Columns, drawn: tuple[Columns, Columns]
) -> None:
    """The same figures as with numbers, also against a truth whose ids are text. Groups of users differ, and
    with them what they serve: intervals of bins and of slices, and replicates."""
    predictions, truth = (as_text(columns) for columns in drawn)
    folder = write_predictions(tmp_path / "predictions", predictions, schema=SHOP_OF_TEXT)
    found = run(spark, folder, write_truth(tmp_path / "truth.csv", truth))
    for task in ("ctr", "cvr", "ctcvr"):
        for name, figure in metrics[task].items():
            if name in ("auc", "gauc", "log_loss", "scaled_normalised_entropy"):
                assert found[task][name] == pytest.approx(figure, rel=1e-9)
        assert found[task]["curves"]["roc"] == metrics[task]["curves"]["roc"]
    assert found["cvr_all_impressions"]["auc"] == metrics["cvr_all_impressions"]["auc"]


def test_repeated_sample_ids_that_are_text(spark: SparkSession, tmp_path: Path) -> None:
    predictions = as_text(draw(30)[0])
    predictions["sample_id"] = [f"s{number}" for number in (*range(100, 115), *range(113, 128))]
    folder = write_predictions(tmp_path / "predictions", predictions, schema=SHOP_OF_TEXT)
    with pytest.raises(InputError, match=r"each sample_id once, found .* s113 \(2 rows\), s114 \(2 rows\)"):
        run(spark, folder)


def test_truth_with_ids_of_the_other_type(spark: SparkSession, tmp_path: Path) -> None:
    predictions, truth = draw(30)
    file = write_truth(tmp_path / "truth.csv", as_text(truth))
    with pytest.raises(InputError, match="a whole sample_id, found 30 of 30 rows without"):
        run(spark, write_predictions(tmp_path / "predictions", predictions), file)


def test_a_truth_line_without_its_id_that_is_text(spark: SparkSession, tmp_path: Path) -> None:
    predictions, truth = (as_text(columns) for columns in draw(30))
    truth["sample_id"][3] = ""
    folder = write_predictions(tmp_path / "predictions", predictions, schema=SHOP_OF_TEXT)
    with pytest.raises(InputError, match="truth.csv: expected a sample_id, found 1 of 30 rows without"):
        run(spark, folder, write_truth(tmp_path / "truth.csv", truth))


@pytest.mark.parametrize("column", ["sample_id", "user_id"])
def test_ids_of_a_type_that_is_neither(spark: SparkSession, tmp_path: Path, column: str) -> None:
    folder = write_predictions(tmp_path / "predictions", draw(30)[0])
    for file in folder.glob("*.parquet"):
        table = pq.read_table(file)
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, table[column].cast(pa.float64())), file)
    with pytest.raises(InputError, match=rf"columns {column} bigint or string \(found double\)\. Give"):
        run(spark, folder)


def test_other_columns(spark: SparkSession, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "predictions", draw(30)[0])
    for file in folder.glob("*.parquet"):
        pq.write_table(pq.read_table(file).drop(["p_cvr"]).cast(_double_p_ctr(), safe=False), file)
    with pytest.raises(InputError, match=r"p_ctr float \(found double\), p_cvr float \(found none\)"):
        run(spark, folder)


def _double_p_ctr() -> pa.Schema:
    schema = arrow_schema(ALI_CCP)
    schema = schema.remove(schema.get_field_index("p_cvr"))
    return schema.set(schema.get_field_index("p_ctr"), pa.field("p_ctr", pa.float64()))


def test_not_parquet(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / SUCCESS_NAME).touch()
    with pytest.raises(InputError, match="expected Parquet files inside, found none"):
        run(spark, folder)
    (folder / "part-0.parquet").write_text("sample_id,p_ctr\n1,0.5\n")
    (folder / MANIFEST_NAME).write_text('{"rows": 1}')
    with pytest.raises(InputError, match="expected Parquet files, found one that is not"):
        run(spark, folder)


def test_a_broken_page_of_a_parquet_file(spark: SparkSession, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "predictions", draw(30)[0])
    file = folder / "part-1.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(400) + content[404:])
    with pytest.raises(InputError, match="expected Parquet files, found one that is not"):
        run(spark, folder)


def take_away(folder: Path) -> None:
    (folder / "part-1.parquet").unlink()


def double(folder: Path) -> None:
    shutil.copy(folder / "part-1.parquet", folder / "part-2.parquet")


def cut(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "part-1.parquet").slice(0, 7), folder / "part-1.parquet")


@pytest.mark.parametrize(
    ("change", "by_file", "in_all"),
    [
        (take_away, "part-1.parquet: expected 15 rows, found no such file", "15 in 1 file"),
        (double, "part-2.parquet: expected no such file, found 15 rows", "45 in 3 file"),
        (cut, "part-1.parquet: expected 15 rows, found 7 rows", "22 in 2 file"),
    ],
)
def test_files_are_those_of_the_manifest(tmp_path: Path, change: Change, by_file: str, in_all: str) -> None:
    """Also with a manifest of the first releases, which counts only all rows."""
    folder = write_predictions(tmp_path / "predictions", draw(30)[0])
    change(folder)
    with pytest.raises(InputError, match=f"predictions: its files are not those .*\n  {by_file}\n"):
        check_paths(str(folder))
    (folder / MANIFEST_NAME).write_text('{"rows": 30, "run": "run", "step": 5, "epoch": 1}')
    with pytest.raises(InputError, match=f"expected 30 rows, found {in_all}"):
        check_paths(str(folder))


def test_predictions_of_the_first_releases_are_judged(spark: SparkSession, tmp_path: Path) -> None:
    """Their manifest counts only all rows. What else lies in the folder is not read."""
    folder = write_predictions(tmp_path / "predictions", draw(30)[0])
    (folder / MANIFEST_NAME).write_text('{"rows": 30, "run": "run", "step": 5, "epoch": 1}')
    shutil.copy(folder / "part-1.parquet", folder / "_left.parquet")
    (folder / "notes.txt").write_text("seen by Spark, if it read the folder")
    assert run(spark, folder)["ctr"]["rows"] == 30


@pytest.mark.parametrize("content", [None, "{}", '{"rows": [7]}'])
def test_predictions_without_their_manifest_are_refused(tmp_path: Path, content: str | None) -> None:
    folder = write_predictions(tmp_path / "predictions", draw(5)[0])
    (folder / MANIFEST_NAME).unlink()
    if content is not None:
        (folder / MANIFEST_NAME).write_text(content)
    with pytest.raises(InputError, match=r"predictions: expected predictions \(_manifest.json.*esmm.predict"):
        check_paths(str(folder))


def test_repeated_sample_ids(spark: SparkSession, tmp_path: Path) -> None:
    """In two files, so that each file alone is well."""
    predictions, _ = draw(30)
    predictions["sample_id"] = np.array([*range(100, 115), *range(113, 128)])
    folder = write_predictions(tmp_path / "predictions", predictions)
    with pytest.raises(InputError, match=r"each sample_id once, found .* 113 \(2 rows\), 114 \(2 rows\)"):
        run(spark, folder)
    assert not (tmp_path / "metrics.json").exists()


def test_p_ctcvr_is_the_product(spark: SparkSession, tmp_path: Path) -> None:
    predictions, _ = draw(30)
    predictions["p_ctcvr"][4] *= 1.001
    found = r"expected p_ctcvr = p_ctr \* p_cvr, found 1 of 30 .*p_ctr=0.\d+ p_cvr=0.\d+ p_ctcvr=0.\d+"
    with pytest.raises(InputError, match=found):
        run(spark, write_predictions(tmp_path / "predictions", predictions))


def test_a_product_may_be_rounded(spark: SparkSession, tmp_path: Path) -> None:
    """Products of float32 down to none at all, and some taken by a sum of logarithms."""
    predictions, _ = draw(60)
    p = np.logspace(-30, 0, 60, dtype=np.float32)
    predictions |= {"p_ctr": p, "p_cvr": p[::-1].copy()}
    predictions["p_ctr"][:20] = predictions["p_cvr"][:20] = np.logspace(-30, -15, 20, dtype=np.float32)
    by_logarithms = np.exp(np.log(predictions["p_ctr"]) + np.log(predictions["p_cvr"]))
    predictions["p_ctcvr"] = np.where(
        np.arange(60) % 2, by_logarithms, predictions["p_ctr"] * predictions["p_cvr"]
    )
    assert run(spark, write_predictions(tmp_path / "predictions", predictions))["ctcvr"]["rows"] == 60


def test_no_rows(spark: SparkSession, tmp_path: Path) -> None:
    columns: Columns = {name: [] for name in arrow_schema(ALI_CCP).names}
    with pytest.raises(InputError, match="expected at least one row, found none"):
        run(spark, write_predictions(tmp_path / "predictions", columns, num_files=1))


def test_paths_are_checked_before_spark_starts(tmp_path: Path) -> None:
    published = write_predictions(tmp_path / "predictions", draw(5)[0])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "other.csv").write_text("sample_id,click\n1,0\n")
    for predictions, truth, message in [
        (tmp_path / "nowhere", None, "expected a folder of predictions, found nothing"),
        (tmp_path / "file", None, "expected a folder of predictions, found a file"),
        (tmp_path / "empty", None, "expected published predictions"),
        (published, tmp_path / "truth_*.csv", "expected a truth file, found none"),
        (
            published,
            tmp_path / "other.csv",
            "expected the header sample_id,p_ctr,p_cvr, found 'sample_id,click'",
        ),
    ]:
        options = Options(str(predictions), str(tmp_path / "m.json"), str(truth) if truth else None, None, [])
        with pytest.raises(InputError, match=message):
            check(options)


@pytest.mark.parametrize(
    ("predicted", "known", "message"),
    [
        (
            [1, 2, 3, 4],
            [1, 2, 3],
            "a truth line for every prediction, found 1 of 4 .* sample_id 4: only predicted",
        ),
        (
            [1, 2, 3],
            [0, 1, 2, 3],
            "a prediction for every truth line, found 1 of 4 .* sample_id 0: only in the truth",
        ),
        ([1, 2, 3], [1, 2, 2, 3], "truth.csv: expected each sample_id once, found 4 lines for 3 predictions"),
    ],
)
def test_truth_of_other_impressions(
    spark: SparkSession, tmp_path: Path, predicted: list[int], known: list[int], message: str
) -> None:
    predictions, truth = draw(4)
    predictions = {name: values[: len(predicted)] for name, values in predictions.items()}
    folder = write_predictions(tmp_path / "predictions", predictions | {"sample_id": predicted})
    truth = {name: values[: len(known)] for name, values in truth.items()}
    file = write_truth(tmp_path / "truth.csv", truth | {"sample_id": np.array(known)})
    with pytest.raises(InputError, match=message):
        run(spark, folder, file)


@pytest.mark.parametrize(
    ("line", "message"), [("7,0.5", "p_cvr in .*sample_id 7: null"), ("x,0.1,0.1", "whole sample_id")]
)
def test_broken_truth_line(spark: SparkSession, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "truth.csv").write_text(f"sample_id,p_ctr,p_cvr\n1,0.1,0.1\n{line}\n")
    with pytest.raises(InputError, match=message):
        run(spark, write_predictions(tmp_path / "predictions", draw(5)[0]), tmp_path / "truth.csv")


def command(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYSPARK_PYTHON", None)
    return subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_command_line(tmp_path: Path) -> None:
    predictions, truth = draw()
    write_predictions(tmp_path / "predictions", predictions)
    write_truth(tmp_path / "truth.csv", truth)
    arguments = [
        f"--predictions={tmp_path}/predictions",
        f"--out={tmp_path}/m.json",
        f"--truth={tmp_path}/truth.csv",
    ]
    done = command([sys.executable, "-m", "jobs.evaluate", *arguments], PROJECT)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "m.json").read_text())
    assert f"{written['ctr']['auc']['value']:.4f} [{written['ctr']['auc']['low']:.4f}, " in done.stdout
    assert "CTR on all" in done.stdout and "CVR on clicked" in done.stdout
    assert f"AUC {written['cvr_all_impressions']['auc']:.4f} of at best " in done.stdout
    assert pq.read_table(tmp_path / "m.users").num_rows == written["ctr"]["users"]


def test_spark_submit_from_another_folder_reports_bad_data_without_traceback(tmp_path: Path) -> None:
    predictions, _ = draw(30)
    predictions["p_ctr"][3] = np.nan
    write_predictions(tmp_path / "predictions", predictions)
    script = ["spark-submit", "--master", "local[1]", str(PROJECT / "jobs" / "evaluate.py")]
    done = command([*script, "--predictions=predictions", "--out=m.json"], tmp_path)
    assert done.returncode == 2, done.stderr
    # spark-submit passes on both streams of the script as its own stdout.
    assert "error: predictions: expected p_ctr in [0, 1], found 1 of 30" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr and "\tat " not in done.stdout + done.stderr
    assert not (tmp_path / "m.json").exists()


def test_missing_path_is_one_line(tmp_path: Path) -> None:
    arguments = ["--predictions", str(tmp_path / "nowhere"), "--out", str(tmp_path / "m.json")]
    done = command([sys.executable, "-m", "jobs.evaluate", *arguments], PROJECT)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
