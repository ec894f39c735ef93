"""Training and prediction on samples that have nothing of Ali-CCP's, against plain Python."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from esmm.checkpoints.files import newest_checkpoint
from esmm.checkpoints.state import read_state
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.training_run import train
from schemas import predictions
from tests.fixtures.plain_batches import Row, check_batch, plain_bags, rows_of_samples
from tests.fixtures.runs import CONFIG, Inputs, log_of, numbers_of, predictions_of
from tests.fixtures.sample_files import read_rows
from tests.fixtures.shop import AVERAGED, SHOP
from tests.fixtures.workers import ONE_WORKER

Numbers = dict[str, npt.NDArray[np.float32]]
HIDDEN = CONFIG["model"]["towers"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("shop"), SHOP)


@pytest.fixture(scope="module")
def run(shop: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps."""
    impressions = sum(len(row["sample_id"]) for row in read_rows(shop.train))
    folder = tmp_path_factory.mktemp("runs") / "shop"
    train(ONE_WORKER, shop.options(folder, "train.epochs=1", f"train.batch_size={impressions // 2 + 1}"))
    return folder


def test_batches_hold_what_the_rows_hold(shop: Inputs) -> None:
    of_sample = rows_of_samples(read_rows(shop.train))
    found = 0
    for batch in Loader(str(shop.train), batch_size=7, shuffle_window=12, with_keys=True).epoch(
        Position.start(0)
    ):
        check_batch(batch, of_sample, SHOP, AVERAGED)
        found += batch.num_impressions
    assert found == len(of_sample)


def test_a_run_says_which_fields_it_was_trained_on(run: Path) -> None:
    state = read_state(newest_checkpoint(run))
    assert (state.step, state.num_rows) == (2, 40 + 30 + 50 + 20)
    assert state.schema["schema"] == SHOP.to_dict()
    numbers = numbers_of(newest_checkpoint(run))
    dim = CONFIG["model"]["embedding_dim"]
    assert numbers["network.context.weight"].shape == numbers["network.item.weight"].shape
    assert numbers["network.item.weight"].shape == (2 * HIDDEN[0], 2 * dim)
    assert np.isfinite(log_of(run)[-1]["auc_ctr"])


def test_predictions_are_those_of_the_checkpoint_written_out(run: Path, shop: Inputs, tmp_path: Path) -> None:
    state, numbers = read_state(newest_checkpoint(run)), numbers_of(newest_checkpoint(run))
    numbers["rows"] = numbers["rows"] * state.scale
    of_sample = rows_of_samples(read_rows(shop.valid))
    found = predictions_of(run, shop.valid, tmp_path / "out").to_pylist()
    assert {row["sample_id"] for row in found} == set(of_sample) and len(found) == len(of_sample)
    for row in found:
        p_ctr, p_cvr = (_probability(numbers, *of_sample[row["sample_id"]], tower) for tower in (0, 1))
        assert (row["p_ctr"], row["p_cvr"]) == pytest.approx((p_ctr, p_cvr), rel=1e-4)
    assert predictions.read_manifest(str(tmp_path / "out"))["schema"] == SHOP.to_dict()


def _probability(numbers: Numbers, row: Row, number: int, tower: int) -> float:
    """By one tower, of one impression."""
    bags = plain_bags(row, number, SHOP, AVERAGED)
    pooled = [sum((w * numbers["rows"][i] for i, w in bag), np.zeros(4, np.float32)) for bag in bags]
    weight = np.concatenate([numbers["network.context.weight"], numbers["network.item.weight"]], 1)
    mine = slice(tower * HIDDEN[0], (tower + 1) * HIDDEN[0])
    x = weight[mine] @ np.concatenate(pooled) + numbers["network.context.bias"][mine]
    for level in range(len(HIDDEN)):
        name = f"network.towers.{tower}.{2 * level}"
        x = numbers[f"{name}.weight"] @ np.maximum(x, 0) + numbers[f"{name}.bias"]
    return 1 / (1 + float(np.exp(-x[0])))
