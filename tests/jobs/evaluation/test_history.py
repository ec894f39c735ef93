"""Users and items that the training samples have or lack: slices and baselines, against plain counts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import log_loss, roc_auc_score

from cli.errors import InputError
from jobs.evaluate import check, options_of, parse_arguments
from jobs.evaluation.history import rated, seen_before, smoothed
from jobs.evaluation.run import evaluate
from schemas import predictions
from schemas.samples import MANIFEST_NAME
from storage.publishing import SUCCESS_NAME
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows, write_samples

ITEM = TEST_SCHEMA.fields[TEST_SCHEMA.index["205"]]
Columns = dict[str, npt.NDArray[Any]]


def plain_counts(folder: Path) -> tuple[Counter[int], dict[int, list[int]]]:
    """Impressions per user; impressions, clicks and conversions per item."""
    users: Counter[int] = Counter()
    items: dict[int, list[int]] = {}
    for row in read_rows(folder):
        if row["user_id"] is not None:
            users[row["user_id"]] += len(row["click"])
        for item, click, conversion in zip(row[ITEM.column], row["click"], row["conversion"], strict=True):
            counts = items.setdefault(item, [0, 0, 0])
            for place, value in enumerate((1, click, conversion)):
                counts[place] += value
    return users, items


def draw(users: Counter[int], items: dict[int, list[int]], n: int = 500) -> Columns:
    """Predictions of users and items of which every third is not in the training samples."""
    rng = np.random.default_rng(3)
    known = np.array(sorted(users))
    user = np.where(rng.random(n) < 1 / 3, -rng.integers(1, 9, n), rng.choice(known, n))
    item = np.where(rng.random(n) < 1 / 3, rng.integers(0, ITEM.buckets, n), rng.choice(sorted(items), n))
    click = rng.random(n) < 0.4
    p_ctr, p_cvr = (rng.uniform(0.1, 0.9, n).astype(np.float32) for _ in range(2))
    return {
        "sample_id": np.arange(n),
        "user_id": user,
        "click": click.astype(np.int8),
        "conversion": (click & (rng.random(n) < 0.5)).astype(np.int8),
        "p_ctr": p_ctr,
        "p_cvr": p_cvr,
        "p_ctcvr": p_ctr * p_cvr,
        "field_205": item.astype(np.int32),
    }


def write(folder: Path, columns: Columns, kept: tuple[str, ...] = ("205",)) -> str:
    folder.mkdir()
    layout = predictions.arrow_schema(TEST_SCHEMA, kept)
    n = len(columns["sample_id"])
    table = pa.table({"context_id": [f"{i:016x}" for i in range(n)], **columns}).select(layout.names)
    pq.write_table(table.cast(layout), folder / "part-00000.parquet")
    told = {"rows": n, "kept": list(kept), "schema": TEST_SCHEMA.to_dict()}
    (folder / MANIFEST_NAME).write_text(json.dumps(told))
    (folder / SUCCESS_NAME).touch()
    return str(folder)


def labels_of(task: str, columns: Columns) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Labels, and which impressions are judged."""
    every = np.ones(len(columns["click"]), bool)
    return {
        "ctr": (columns["click"], every),
        "cvr": (columns["conversion"], columns["click"] == 1),
        "ctcvr": (columns["conversion"], every),
    }[task]


def plain_rate(task: str, items: dict[int, list[int]], item: int) -> float:
    places = {"ctr": (1, 0), "cvr": (2, 1), "ctcvr": (2, 0)}[task]
    positives, rows = (sum(counts[place] for counts in items.values()) for place in places)
    of_item = [items.get(item, [0, 0, 0])[place] for place in places]
    return (of_item[0] + 1) / (of_item[1] + rows / positives)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "split=train"
    write_samples(folder, num_rows=60, num_files=3)
    return folder


def test_slices_and_baselines_are_those_of_plain_counts(
    spark: SparkSession, training: Path, tmp_path: Path
) -> None:
    users, items = plain_counts(training)
    columns = draw(users, items)
    config = tmp_path / "config.yaml"
    config.write_text("evaluate: {train_bounds: [0, 4, 8]}\n")
    words = ["--predictions", write(tmp_path / "predictions", columns), "--out", str(tmp_path / "m.json")]
    options = options_of(parse_arguments([*words, "--train", str(training), "--config", str(config)]))
    check(options)
    found = evaluate(spark, options)

    seen = {
        "training impressions of the user": np.array([users[user] for user in columns["user_id"]]),
        "training impressions of the item (205)": np.array(
            [items.get(item, [0])[0] for item in columns["field_205"]]
        ),
    }
    slicings = {one["name"]: one["slices"] for one in found["slicings"]}
    for name, counts in seen.items():
        codes = np.searchsorted([0, 4, 8], counts)
        assert len(np.unique(codes)) == 4, "the test must draw all of them"
        assert [one["label"] for one in slicings[name]] == ["0", "1 to 4", "5 to 8", "9 or more"]
        for code, one in enumerate(slicings[name]):
            rows = codes == code
            assert one["ctr"]["rows"] == rows.sum()
            auc = roc_auc_score(columns["click"][rows], columns["p_ctr"][rows])
            assert one["ctr"]["auc"]["value"] == pytest.approx(auc, abs=1e-9)

    for task in ("ctr", "cvr", "ctcvr"):
        labels, judged = labels_of(task, columns)
        p = np.array([plain_rate(task, items, item) for item in columns["field_205"]])[judged]
        base = found[task]["baselines"]["item_rate"]
        assert base["auc"] == pytest.approx(roc_auc_score(labels[judged], p.astype(np.float32)), abs=1e-9)
        assert base["log_loss"] == pytest.approx(log_loss(labels[judged], p), rel=1e-6)
        assert base["calibration_ratio"] == pytest.approx(p.sum() / labels[judged].sum(), rel=1e-6)


def test_without_an_item_users_alone_are_told_apart(
    spark: SparkSession, training: Path, tmp_path: Path
) -> None:
    columns = draw(*plain_counts(training))
    del columns["field_205"]
    words = ["--predictions", write(tmp_path / "predictions", columns, ()), "--out", str(tmp_path / "m.json")]
    found = evaluate(spark, options_of(parse_arguments([*words, "--train", str(training)])))
    names = [one["name"] for one in found["slicings"]]
    assert names == ["impressions of the user", "training impressions of the user"]
    assert list(found["ctr"]["baselines"]) == ["constant"]


@pytest.mark.parametrize(
    ("kept", "more", "message"),
    [
        (("205",), ["--item", "2055"], "expected a field 2055, the item's, found none.*did you mean 205"),
        (("205",), ["--item", "210"], "expected an item, .*found 210, which has several values"),
        (("205",), ["--item", "101"], "expected an item, .*found 101, which has one value per context"),
        ((), ["--item", "205"], "expected a column field_205.*Predict again with --keep 205"),
    ],
)
def test_items_that_are_none(
    training: Path, tmp_path: Path, kept: tuple[str, ...], more: list[str], message: str
) -> None:
    columns = draw(*plain_counts(training), n=20)
    words = ["--predictions", write(tmp_path / "predictions", columns, kept), "--out", "m.json", *more]
    with pytest.raises(InputError, match=message):
        options_of(parse_arguments([*words, "--train", str(training)]))
    with pytest.raises(InputError, match="expected --train"):
        options_of(parse_arguments(words))


def test_samples_of_other_buckets_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_samples(other, schema=TEST_SCHEMA.with_buckets({"205": ITEM.buckets + 1}))
    folder = write(tmp_path / "predictions", draw(*plain_counts(other), n=20))
    words = ["--predictions", folder, "--out", "m.json", "--item", "205", "--train", str(other)]
    with pytest.raises(InputError, match=f"expected 205 in {ITEM.buckets} buckets.*found {ITEM.buckets + 1}"):
        options_of(parse_arguments(words))


def test_a_rate_is_that_of_one_positive_more() -> None:
    """Without impressions it is the mean rate, with many nearly the item's own; never outside [0, 1]."""
    found = smoothed(np.array([0, 1, 500]), np.array([10, 1, 1000]))
    mean = 501 / 1011
    np.testing.assert_allclose(
        found, [1 / (10 + 1 / mean), 2 / (1 + 1 / mean), 501 / (1000 + 1 / mean), mean]
    )
    np.testing.assert_array_equal(smoothed(np.zeros(2, np.int64), np.array([5, 0])), np.zeros(3))


def test_counts_of_several_files_are_added() -> None:
    counts = {"bucket": np.array([7, 3, 7]), "impressions": np.array([2, 1, 4])}
    counts |= {"clicks": np.array([1, 0, 2]), "conversions": np.array([0, 0, 1])}
    items = rated("field_x", counts)
    np.testing.assert_array_equal(items.buckets, [3, 7])
    np.testing.assert_array_equal(items.seen, [1, 6])
    found = items.columns(pa.table({"field_x": np.array([7, 4, 3, 9], np.int32)}))
    np.testing.assert_array_equal(found["train_item"], [6, 0, 1, 0])
    assert found["item_p_ctr"][1] == found["item_p_ctr"][3] == np.float32(3 / 7)


def test_users_are_found_by_their_hash() -> None:
    users = np.array([2, 5, 9], np.uint64)
    before = {"user": np.array([9, 1, 9], np.uint64), "impressions": np.array([3, 8, 4])}
    np.testing.assert_array_equal(seen_before(users, before), [0, 0, 7])
    np.testing.assert_array_equal(seen_before(users, {}), [0, 0, 0])
