"""Training and prediction on samples that have nothing of Ali-CCP's, against plain Python; evaluation and
profile. All with ids that are numbers, with ids that are text, and with numeric fields and weights."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import roc_auc_score

from cli.errors import InputError
from esmm.checkpoints import warm_start
from esmm.checkpoints.files import newest_checkpoint
from esmm.checkpoints.state import read_state
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.training_run import Job, train
from jobs import profile_samples
from jobs.evaluation.inputs import check_paths
from jobs.evaluation.run import Options, evaluate
from jobs.profiling import spark_counts, text
from jobs.profiling.config import ProfileConfig
from schemas import predictions
from schemas.numbers import Number
from schemas.schema import Schema
from tests.fixtures.plain_batches import Row, check_batch, plain_bags, rows_of_samples
from tests.fixtures.runs import CONFIG, Inputs, log_of, numbers_of, predictions_of
from tests.fixtures.sample_files import plain_bent, read_rows, write_samples
from tests.fixtures.shop import AVERAGED, SHOP, SHOP_OF_NUMBERS, SHOP_OF_TEXT
from tests.fixtures.workers import ONE_WORKER, Command

Numbers = dict[str, npt.NDArray[np.float32]]
HIDDEN = CONFIG["model"]["towers"]


@pytest.fixture(scope="module", params=[SHOP, SHOP_OF_TEXT, SHOP_OF_NUMBERS], ids=["ids", "text", "numbers"])
def schema(request: pytest.FixtureRequest) -> Schema:
    return request.param


@pytest.fixture(scope="module")
def shop(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("shop"), schema)


@pytest.fixture(scope="module")
def run(shop: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps."""
    impressions = sum(len(row["sample_id"]) for row in read_rows(shop.train))
    folder = tmp_path_factory.mktemp("runs") / "shop"
    train(ONE_WORKER, shop.options(folder, "train.epochs=1", f"train.batch_size={impressions // 2 + 1}"))
    return folder


def test_batches_hold_what_the_rows_hold(shop: Inputs, schema: Schema) -> None:
    of_sample = rows_of_samples(read_rows(shop.train))
    found = 0
    for batch in Loader(str(shop.train), batch_size=7, shuffle_window=12, with_keys=True).epoch(
        Position.start(0)
    ):
        check_batch(batch, of_sample, schema, AVERAGED)
        found += batch.num_impressions
    assert found == len(of_sample)


def test_a_run_says_which_fields_it_was_trained_on(run: Path, schema: Schema) -> None:
    state = read_state(newest_checkpoint(run))
    assert (state.step, state.num_rows) == (2, 40 + 30 + 50 + 20)
    assert state.schema["schema"] == schema.to_dict()
    numbers = numbers_of(newest_checkpoint(run))
    dim = CONFIG["model"]["embedding_dim"]
    of_user, of_impression = (2 + len(found) for found in (schema.user_numbers, schema.impression_numbers))
    assert numbers["network.context.weight"].shape == (2 * HIDDEN[0], of_user * dim)
    assert numbers["network.item.weight"].shape == (2 * HIDDEN[0], of_impression * dim)
    assert np.isfinite(log_of(run)[-1]["auc_ctr"])


def test_predictions_are_those_of_the_checkpoint_written_out(
    run: Path, shop: Inputs, schema: Schema, tmp_path: Path
) -> None:
    state, numbers = read_state(newest_checkpoint(run)), numbers_of(newest_checkpoint(run))
    numbers["rows"] = numbers["rows"] * state.scale
    of_sample = rows_of_samples(read_rows(shop.valid))
    table = predictions_of(run, shop.valid, tmp_path / "out")
    assert table.schema.equals(predictions.arrow_schema(schema))
    found = table.to_pylist()
    assert {row["sample_id"] for row in found} == set(of_sample) and len(found) == len(of_sample)
    for row in found:
        assert row["user_id"] == of_sample[row["sample_id"]][0]["user_id"]
        inputs = _inputs(numbers, *of_sample[row["sample_id"]], schema)
        p_ctr, p_cvr = (_probability(numbers, inputs, tower) for tower in (0, 1))
        assert (row["p_ctr"], row["p_cvr"]) == pytest.approx((p_ctr, p_cvr), rel=1e-4)
    assert predictions.read_manifest(str(tmp_path / "out"))["schema"] == schema.to_dict()


def test_evaluation_judges_them_against_labels_and_truth(
    spark: SparkSession, run: Path, shop: Inputs, tmp_path: Path
) -> None:
    folder = tmp_path / "predictions"
    found = predictions_of(run, shop.valid, folder).to_pandas()
    truth = np.random.default_rng(3).uniform(0.01, 0.99, (2, len(found["sample_id"])))
    lines = pd.DataFrame({"sample_id": found["sample_id"], "p_ctr": truth[0], "p_cvr": truth[1]})
    lines[::-1].to_csv(tmp_path / "truth.csv", index=False)
    paths = {"predictions": str(folder), "truth": str(tmp_path / "truth.csv")}
    check_paths(paths["predictions"])
    metrics = evaluate(spark, Options(**paths, out=str(tmp_path / "metrics.json"), against=None, cuts=[]))
    judged = found["click"] == 1
    cvr = roc_auc_score(found["conversion"][judged], found["p_cvr"][judged])
    assert metrics["ctr"]["auc"]["value"] == pytest.approx(roc_auc_score(found["click"], found["p_ctr"]))
    assert metrics["cvr"]["auc"]["value"] == pytest.approx(cvr)
    ctcvr = roc_auc_score(found["conversion"], found["p_ctcvr"])
    assert metrics["ctcvr"]["auc"]["value"] == pytest.approx(ctcvr)
    best = roc_auc_score(found["click"], truth[0].astype(np.float32))
    assert metrics["ctr"]["baselines"]["truth"]["auc"] == pytest.approx(best)


def test_the_profile_counts_repeated_sample_ids(
    spark: SparkSession, shop: Inputs, schema: Schema, tmp_path: Path
) -> None:
    inputs = profile_samples.read_inputs(str(shop.valid), against=str(shop.train))
    profile = profile_samples.run(spark, inputs, ProfileConfig(), str(tmp_path / "profile.json"))
    impressions = sum(len(row["sample_id"]) for row in read_rows(shop.valid))
    assert set(profile.get("numbers", {})) == {number.name for number in schema.numbers}
    for name, one in profile.get("numbers", {}).items():
        ours, theirs = (made["numbers"][name] for made in (inputs.ours, inputs.theirs.manifest))
        assert one["coverage"] == ours["values"] / impressions
        assert one["shift"] == pytest.approx((ours["mean"] - theirs["mean"]) / theirs["std"])
        assert f"{name} " in text.format_profile(profile)
    assert (profile["duplicate_sample_ids"], profile["counts"]["impressions"]) == (0, impressions)
    work = spark_counts.work_of(spark, True, inputs.samples, inputs.ours)
    assert spark_counts.num_duplicates(spark, [*work, *work], schema) == impressions


def test_two_workers_learn_what_one_does(tmp_path: Path, command: Command) -> None:
    """Steps over all impressions, so that both are given the same ones; with numbers and weights."""
    inputs = Inputs(tmp_path / "shop", SHOP_OF_NUMBERS)
    settings = ("train.epochs=4", "train.batch_size=100000", "optimizer.dense.learning_rate=0.01")
    train(ONE_WORKER, inputs.options(tmp_path / "one", *settings))
    done = command("-m", "esmm.train", *inputs.arguments(tmp_path / "two", *settings), workers=2)
    assert done.returncode == 0, done.stderr
    one, two = (numbers_of(newest_checkpoint(tmp_path / name)) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=2e-3, atol=2e-5, err_msg=name)


def test_a_model_keeps_the_statistics_of_its_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it goes on with other samples; what another use of a number has learnt is not taken over."""
    caplog.set_level(logging.INFO)
    inputs = Inputs(tmp_path / "shop", SHOP_OF_NUMBERS)
    train(ONE_WORKER, inputs.options(tmp_path / "old", "train.epochs=1"))
    age, *others = SHOP_OF_NUMBERS.numbers
    changed = replace(SHOP_OF_NUMBERS, numbers=(replace(age, clip=(0, 4)), *others))
    for name, schema in (("later", SHOP_OF_NUMBERS), ("changed", changed)):
        write_samples(tmp_path / name, num_rows=20, seed=7, schema=schema)
    warm = {}
    for name in ("later", "changed"):
        options = inputs.options(tmp_path / "new", train=tmp_path / name, valid=tmp_path / name)
        job = Job.read(ONE_WORKER, options)
        trained = job.start()
        warm_start.load(tmp_path / "old", job.origin, trained)
        warm[name] = trained.model.network.state_dict()
    old = numbers_of(newest_checkpoint(tmp_path / "old"))
    user, item = (f"numbers.sides.{side}.parts.smooth" for side in ("user", "impression"))
    for name in (f"{user}.mean", f"{user}.weight", f"{item}.mean", f"{item}.weight", "context.weight"):
        np.testing.assert_array_equal(warm["later"][name], old[f"network.{name}"])
        same = np.array_equal(warm["changed"][name], old[f"network.{name}"])
        assert same == name.startswith(item), name
    assert f"{user}.mean (of other numbers)" in caplog.text
    with pytest.raises(InputError, match=r"number age: clip \(0, 8\) -> \(0, 4\)"):
        predictions_of(tmp_path / "old", tmp_path / "changed", tmp_path / "out")


def test_samples_with_ids_of_another_type_do_not_fit(
    run: Path, shop: Inputs, schema: Schema, tmp_path: Path
) -> None:
    """Each of the doors says so: of training, of going on, of prediction, of the profile."""
    other = tmp_path / "other"
    write_samples(other, num_rows=10, schema=SHOP if schema is SHOP_OF_TEXT else SHOP_OF_TEXT)
    told = r"(numbers removed: age, price, stock; )?sample_id_type \w+ -> \w+; user_id_type \w+ -> \w+"
    with pytest.raises(InputError, match=told):
        train(ONE_WORKER, shop.options(tmp_path / "run", valid=other))
    with pytest.raises(InputError, match=f"another schema .{told}"):
        train(ONE_WORKER, shop.options(run, "--resume", train=other, valid=other))
    with pytest.raises(InputError, match=f"other samples .{told}"):
        predictions_of(run, other, tmp_path / "out")
    with pytest.raises(InputError, match=told):
        profile_samples.read_inputs(str(shop.valid), against=str(other))


def _inputs(numbers: Numbers, row: Row, impression: int, schema: Schema) -> npt.NDArray[np.float32]:
    """What the towers see of an impression: the pooled vectors of the user, its numbers, then the others."""
    bags = plain_bags(row, impression, SHOP, AVERAGED)
    pooled = [sum((w * numbers["rows"][i] for i, w in bag), np.zeros(4, np.float32)) for bag in bags]
    if not schema.numbers:
        return np.concatenate(pooled)
    age, price, stock = (row[number.column] for number in schema.numbers)
    user = _tanh_vector(numbers, "user", age, schema.numbers[0])
    item = _tanh_vector(numbers, "impression", price[impression], schema.numbers[1])
    name = "network.numbers.sides.impression.parts.parted"
    part = 0 if np.isnan(stock[impression]) else 1 + sum(stock[impression] >= numbers[f"{name}.bounds"][0])
    return np.concatenate([*pooled[:2], user, *pooled[2:], item, numbers[f"{name}.table"][part]])


def _tanh_vector(numbers: Numbers, side: str, x: float, number: Number) -> npt.NDArray[np.float32]:
    found = {
        name: numbers[f"network.numbers.sides.{side}.parts.smooth.{name}"][0]
        for name in ("weight", "bias", "missing", "mean", "std")
    }
    if np.isnan(x):
        return found["missing"]
    standard = (plain_bent(x, number) - found["mean"]) / found["std"]
    return np.tanh(standard * found["weight"] + found["bias"])


def _probability(numbers: Numbers, inputs: npt.NDArray[np.float32], tower: int) -> float:
    """By one tower, of one impression."""
    weight = np.concatenate([numbers["network.context.weight"], numbers["network.item.weight"]], 1)
    mine = slice(tower * HIDDEN[0], (tower + 1) * HIDDEN[0])
    x = weight[mine] @ inputs + numbers["network.context.bias"][mine]
    for level in range(len(HIDDEN)):
        name = f"network.towers.{tower}.{2 * level}"
        x = numbers[f"{name}.weight"] @ np.maximum(x, 0) + numbers[f"{name}.bias"]
    return 1 / (1 + float(np.exp(-x[0])))
