"""Logs of single days: one world that drifts, whose days can be drawn alone and put together."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from cli.errors import InputError
from jobs import build_samples
from jobs.demo_logs import drawing
from jobs.demo_logs.chunks import Sampler, calibrate, sigmoid
from jobs.demo_logs.days import Day, draw_day, whole_day
from jobs.demo_logs.draw import ITEM
from jobs.demo_logs.laws import Array
from jobs.demo_logs.options import DayOptions
from jobs.demo_logs.plan import Plan
from jobs.demo_logs.world import LARGEST_ID, PlantedWorld, build_world
from jobs.evaluation.truth import check_truth
from jobs.make_demo_logs import make_logs, parse_arguments, read_options
from jobs.raw_logs.files import find_logs
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import manifest
from tests.fixtures.ali_ccp import ALI_CCP
from tests.jobs.test_make_demo_logs import Line, digest, parse_file

OPTIONS = DayOptions(contexts=120, seed=4, list_scale=0.2)
CONTEXTS = 600  # of the worlds that are drawn without their logs


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with the logs of days 1, 2 and 7."""
    raw = tmp_path_factory.mktemp("days")
    for day in (1, 2, 7):
        make_logs(str(raw / f"ds={day}"), replace(OPTIONS, day=day), processes=1, overwrite=False)
    return {day: raw / f"ds={day}" for day in (1, 2, 7)}


@pytest.fixture(scope="module")
def rows(folders: dict[int, Path]) -> dict[int, list[Line]]:
    return {day: parse_file(folder / "sample_skeleton.csv", 6) for day, folder in folders.items()}


@pytest.fixture(scope="module")
def records(folders: dict[int, Path]) -> dict[int, list[Line]]:
    return {day: parse_file(folder / "common_features.csv", 3) for day, folder in folders.items()}


@pytest.fixture(scope="module")
def days() -> dict[int, Day]:
    return {day: draw_day(2, CONTEXTS, day) for day in (1, 2, 4, 6, 7)}


def read_truth(folder: Path) -> Array:
    """float64 [rows, 3]: sample_id, p_ctr, p_cvr."""
    return np.loadtxt(folder / "truth.csv", delimiter=",", skiprows=1)


def test_a_day_has_the_same_bytes_with_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "CHUNK", 7)  # many chunks, so that two processes interleave
    for processes in (1, 2):
        options = DayOptions(contexts=40, day=3, list_scale=0.2)
        make_logs(str(tmp_path / str(processes)), options, processes, overwrite=False)
    one, two = digest(tmp_path / "1"), digest(tmp_path / "2")
    assert one == two
    logs = {"sample_skeleton.csv", "common_features.csv", "truth.csv"}
    assert set(one) == {"_SUCCESS", "demo_logs.json"} | logs


def test_the_first_day_is_the_world_of_the_seed(days: dict[int, Day]) -> None:
    world = build_world(2, CONTEXTS)
    for ours, expected in zip(days[1].world, world, strict=True):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(
        days[1].item_id, world.id_start[ITEM] + world.id_stride * np.arange(world.num_items)
    )


def test_days_have_contexts_and_sample_ids_of_their_own(
    rows: dict[int, list[Line]], records: dict[int, list[Line]]
) -> None:
    contexts = [{record.head[0] for record in of_day} for of_day in records.values()]
    assert [len(names) for names in contexts] == [OPTIONS.contexts] * 3
    assert len(set.union(*contexts)) == 3 * OPTIONS.contexts
    for names, of_day in zip(contexts, rows.values(), strict=True):
        assert {row.head[3] for row in of_day} == names
    samples = [row.head[0] for of_day in rows.values() for row in of_day]
    assert len(set(samples)) == len(samples)


def test_users_stay_who_they_are(records: dict[int, list[Line]]) -> None:
    profile = ("121", "122", "124", "125", "126", "127", "128", "129")
    seen: dict[int, list[tuple]] = {}
    for of_day in records.values():
        found = {}
        for record in of_day:
            for user in record.features.get("101", ()):
                found[user] = [tuple(record.features.get(field, ())) for field in profile]
        for user, values in found.items():
            seen.setdefault(user, []).append(tuple(values))
    several = [values for values in seen.values() if len(values) > 1]
    assert len(several) > 20
    assert all(len(set(values)) == 1 for values in several)


def test_items_come_and_go_and_no_id_is_given_twice(days: dict[int, Day]) -> None:
    ids = {day: set(found.item_id.tolist()) for day, found in days.items()}
    assert all(len(ids[day]) == days[1].world.num_items for day in days)
    gone, new = ids[1] - ids[2], ids[2] - ids[1]
    assert 0.02 < len(gone) / len(ids[1]) < 0.04
    assert min(new) > LARGEST_ID
    assert not gone & (ids[4] | ids[7])
    assert min(ids[7] - ids[6]) > max(ids[6])


def test_new_items_are_shown_and_have_ids_of_the_day(
    folders: dict[int, Path], rows: dict[int, list[Line]]
) -> None:
    shown = {day: {i for row in of_day for i in row.features.get("205", ())} for day, of_day in rows.items()}
    today = draw_day(OPTIONS.seed, OPTIONS.contexts, 7)
    assert shown[7] <= set(today.item_id.tolist())
    assert max(shown[1]) <= LARGEST_ID < max(shown[7])
    summary = json.loads((folders[7] / "demo_logs.json").read_text())
    assert summary["world"]["largest_id"] == today.item_id.max()


def test_a_noticeable_share_of_impressions_is_of_items_younger_than_three_days(days: dict[int, Day]) -> None:
    world, split = whole_day(2, CONTEXTS, 7)
    lines = Sampler(world, split.plan, 1.0).skeleton(0, CONTEXTS, np.zeros(2))
    features = int(lines.start[-1])
    of_item = lines.field[:features] == ITEM
    shown = (lines.id[:features][of_item] - world.id_start[ITEM]) // world.id_stride
    young = days[7].item_id[shown] > days[4].item_id.max()
    assert 0.05 < young.mean() < 0.15
    popular = np.bincount(shown, minlength=world.num_items) > 10
    new = days[7].item_id > days[4].item_id.max()
    assert 0.05 < new[popular].mean() < 0.15


def test_rates_of_every_day_are_those_asked_for(folders: dict[int, Path]) -> None:
    for folder in folders.values():
        _, p_ctr, p_cvr = read_truth(folder).T
        assert p_ctr.mean() == pytest.approx(OPTIONS.ctr, rel=0.01)
        assert np.average(p_cvr, weights=p_ctr) == pytest.approx(OPTIONS.cvr, rel=0.01)


def expected_auc(score: Array, positive: Array, negative: Array) -> float:
    """AUC where each row is as much positive and negative as its probabilities say."""
    order = np.argsort(score)
    below = np.cumsum(negative[order])
    return float((positive[order] * below).sum() / positive.sum() / negative.sum())


def test_what_was_true_on_day_one_ranks_day_seven_clearly_worse(days: dict[int, Day]) -> None:
    """The same impressions, scored with the effects of day 1, of the day before and of the day."""
    world, split = whole_day(2, CONTEXTS, 7)
    intercepts = calibrate(Sampler(world, split.plan, 1.0), 0.04, 0.15)
    auc = {}
    p_ctr, p_cvr = sigmoid(logits_with(world, split.plan, world) + intercepts).T
    for day in (1, 6, 7):
        logits = logits_with(days[day].world, split.plan, world)
        ctr = expected_auc(logits[:, 0], p_ctr, 1 - p_ctr)
        auc[day] = np.array([ctr, expected_auc(logits[:, 1], p_ctr * p_cvr, p_ctr * (1 - p_cvr))])
    assert (auc[7] - auc[1] > 0.03).all() and (auc[7] - auc[1] < 0.08).all()
    assert (auc[7] - auc[6] < (auc[7] - auc[1]) / 2).all()


def test_later_days_are_as_hard_as_early_ones() -> None:
    found = draw_day(2, CONTEXTS, 60).world, draw_day(2, CONTEXTS, 1).world
    late, early = (
        np.concatenate([w.item_effect.std(0), w.user_effect.std(0), w.appeal.std((0, 1))]) for w in found
    )
    np.testing.assert_allclose(late, early, rtol=0.35)


def logits_with(effects: PlantedWorld, plan: Plan, world: PlantedWorld) -> Array:
    """float64 [rows, 2]: logits of a plan's impressions in `world`, with the effects of another day."""
    mixed = world._replace(
        item_effect=effects.item_effect, user_effect=effects.user_effect, appeal=effects.appeal
    )
    segments = plan.segment_context.shape[0]
    return Sampler(mixed, plan, 1.0).skeleton(0, segments, np.zeros(2)).labels[:, :2]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--day", "0"], "--day: expected 1 to 1000, found 0"),
        (["--day", "2", "--ctr", "2"], "--ctr"),
        (["--day", "2", "--world", "latent"], "--day: expected the additive world"),
        (["--day", "2", "--schema", "configs/schemas/shop.yaml"], "--day: expected the additive world"),
    ],
)
def test_impossible_days_are_refused(arguments: list[str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        read_options(parse_arguments(["--out", "x", *arguments])).check()


def test_a_day_has_a_size_of_its_own() -> None:
    options = read_options(parse_arguments(["--out", "x", "--day", "5", "--seed", "2"]))
    assert options == DayOptions(contexts=4000, seed=2, day=5)


def test_samples_of_a_day_hold_all_of_its_valid_lines(
    spark: SparkSession, folders: dict[int, Path], tmp_path: Path
) -> None:
    folder, out = str(folders[2]), tmp_path / "samples"
    settings = SamplesConfig(buckets={field.name: 1000 for field in ALI_CCP.fields})
    build_samples.run(
        spark, TextLogs(find_logs(folder, folder)), ALI_CCP, settings, str(out), overwrite=False
    )
    table = pq.read_table(sorted(str(path) for path in out.glob("part-*.parquet")))
    found = sorted(i for of_context in table["sample_id"].to_pylist() for i in of_context)
    truth = folders[2] / "truth.csv"
    check_truth(str(truth))
    assert found == read_truth(folders[2])[:, 0].astype(int).tolist()
    assert manifest.read(str(out))["quarantine"] == {"conversion_without_click": 2}
