"""The demo logs, read back by a parser of their own and compared with the truth beside them."""

import hashlib
import json
import math
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cli.errors import InputError
from cli.version import WRITTEN_BY
from jobs import make_demo_logs
from jobs.demo_logs import drawing
from jobs.demo_logs.chunks import Sampler, calibrate, sigmoid, solve_intercept
from jobs.demo_logs.options import Options
from jobs.demo_logs.plan import draw_impressions, draw_plan
from jobs.demo_logs.world import LARGEST_ID, build_world
from jobs.make_demo_logs import make_logs
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS

OPTIONS = Options(contexts=400, seed=3, cvr=0.2)
SIDES = {field.name: field.side for field in FIELDS}
MULTI = {field.name for field in FIELDS if field.multi}
# Cross field: the item's field and the history's, whose common id it holds.
CROSSED = {
    "508": ("206", "109_14"),
    "509": ("207", "110_14"),
    "702": ("216", "127_14"),
    "853": ("210", "150_14"),
}
PROFILE = {"121", "122", "124", "125", "127", "128"}


class Line(NamedTuple):
    """One parsed line; features: per field the values by id, as text."""

    head: list[str]
    features: dict[str, dict[int, str]]
    order: list[str]


class Half(NamedTuple):
    skeleton: list[Line]
    common: dict[str, Line]
    common_order: list[str]
    truth: dict[int, tuple[float, float]]


def parse_line(line: str, columns: int) -> Line:
    """A raw line of so many columns; every promise of the format that one line can break is checked."""
    *head, count, tail = line.split(",")
    assert len(head) == columns - 2
    features: dict[str, dict[int, str]] = {}
    order = []
    for feature in tail.split("\x01"):
        match = re.fullmatch("([0-9_]+)\x02([1-9][0-9]*)\x03([0-9]\\.[0-9]{1,5})", feature)
        assert match, feature
        field, feature_id, value = match.groups()
        assert int(feature_id) not in features.setdefault(field, {}), "an id twice in one field"
        features[field][int(feature_id)] = value
        order.append(field)
    assert int(count) == len(order)
    assert re.fullmatch("[0-9a-f]{16}", head[-1])
    return Line(head, features, order)


def parse_file(path: Path, columns: int) -> list[Line]:
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n") and "\r" not in text and "\n\n" not in text
    return [parse_line(line, columns) for line in text[:-1].split("\n")]


def read_half(folder: Path, split: str) -> Half:
    records = parse_file(folder / f"common_features_{split}.csv", 3)
    header, *lines = (folder / f"truth_{split}.csv").read_text().splitlines()
    assert header == "sample_id,p_ctr,p_cvr"
    rows = [line.split(",") for line in lines]
    truth = {int(sample_id): (float(p_ctr), float(p_cvr)) for sample_id, p_ctr, p_cvr in rows}
    assert len(truth) == len(lines)
    names = [record.head[0] for record in records]
    assert len(set(names)) == len(names)
    skeleton = parse_file(folder / f"sample_skeleton_{split}.csv", 6)
    return Half(skeleton, dict(zip(names, records, strict=True)), names, truth)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("demo") / "raw"
    return folder, make_logs(str(folder), OPTIONS, processes=2, overwrite=False)


@pytest.fixture(scope="module")
def halves(logs: tuple[Path, dict]) -> tuple[Half, Half]:
    return read_half(logs[0], "train"), read_half(logs[0], "test")


@pytest.fixture(scope="module")
def train(halves: tuple[Half, Half]) -> Half:
    return halves[0]


def is_dirty(row: Line) -> bool:
    return row.head[1:3] == ["0", "1"]


def share(rows: list[Line], field: str) -> float:
    """Mean number of features of a field per line."""
    return sum(len(row.features.get(field, ())) for row in rows) / len(rows)


def test_fields_stand_on_their_side_and_single_ones_once(halves: tuple[Half, Half]) -> None:
    for half in halves:
        for lines, of_user in ((half.common.values(), True), (half.skeleton, False)):
            for line in lines:
                for field, values in line.features.items():
                    assert (SIDES[field] == "user") is of_user
                    assert len(values) == 1 or field in MULTI


def test_sample_ids_count_from_one_and_every_context_has_its_record(halves: tuple[Half, Half]) -> None:
    for half in halves:
        assert [int(row.head[0]) for row in half.skeleton] == list(range(1, len(half.skeleton) + 1))
        assert {row.head[3] for row in half.skeleton} == set(half.common)
    assert [len(half.common) for half in halves] == [400, 200]
    assert not set(halves[0].common) & set(halves[1].common)


def test_skeleton_is_grouped_in_the_main_and_the_common_file_is_not_in_its_order(train: Half) -> None:
    contexts = [row.head[3] for row in train.skeleton]
    runs = 1 + sum(a != b for a, b in pairwise(contexts))
    assert 400 < runs < 420  # some contexts are torn in two
    first_seen = list(dict.fromkeys(contexts))
    assert train.common_order != first_seen
    same_place = sum(a == b for a, b in zip(train.common_order, first_seen, strict=True))
    assert same_place < 20


def test_order_of_features_varies_between_rows(train: Half) -> None:
    firsts = Counter(row.order[0] for row in train.skeleton)
    assert set(firsts) == {f.name for f in FIELDS if f.side != "user"}
    assert firsts["210"] > firsts["205"]  # six node ids per row, one item id


def test_values_are_logarithms_of_whole_counts_and_ones(train: Half) -> None:
    for line in [*list(train.common.values())[:100], *train.skeleton[:2000]]:
        for field, values in line.features.items():
            for text in values.values():
                assert text == repr(round(float(text), 5))
                if not FIELDS[ALI_CCP.index[field]].weighted:
                    assert text == "1.0"
                    continue
                divisor = 12 if field in ("150_14", "853") else 1
                count = round(divisor * math.expm1(float(text)))
                assert count >= 1
                assert text == repr(round(math.log1p(count / divisor), 5))


def test_ids_form_one_space_without_overlap(halves: tuple[Half, Half]) -> None:
    seen: dict[str, set[int]] = {}
    for half in halves:
        for line in [*half.common.values(), *half.skeleton]:
            for field, values in line.features.items():
                seen.setdefault(field, set()).update(values)
    assert set(seen) == set(SIDES)
    ranges = sorted((min(ids), max(ids)) for ids in seen.values())
    assert ranges[0][0] >= 1 and ranges[-1][1] <= LARGEST_ID
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    assert {len(seen[field]) for field in ("301", "124", "125", "129")} == {3, 2, 7, 4}


def test_cross_fields_stand_exactly_where_history_and_item_meet(halves: tuple[Half, Half]) -> None:
    start = build_world(OPTIONS.seed, OPTIONS.contexts).id_start

    def indices(line: Line, field: str) -> dict[int, str]:
        return {i - int(start[ALI_CCP.index[field]]): v for i, v in line.features.get(field, {}).items()}

    for half in halves:
        for row in half.skeleton:
            record = half.common[row.head[3]]
            for cross, (of_item, of_user) in CROSSED.items():
                history = indices(record, of_user)
                expected = {i: history[i] for i in indices(row, of_item) if i in history}
                assert indices(row, cross) == expected


def test_coverage_is_near_that_of_the_real_logs(train: Half) -> None:
    records, rows = list(train.common.values()), train.skeleton
    for field in PROFILE:
        assert share(records, field) == pytest.approx(0.87, abs=0.05)
    assert all(len(PROFILE & set(r.features)) in (0, len(PROFILE)) for r in records)
    assert share(records, "126") == pytest.approx(0.42, abs=0.08)
    assert share(records, "129") == pytest.approx(0.64, abs=0.08)
    assert share(rows, "216") == pytest.approx(0.71, abs=0.06)
    assert share(rows, "210") == pytest.approx(6.1, abs=0.6)
    positions = sorted(Counter(next(iter(r.features["301"])) for r in rows).values())
    assert np.array(positions) / len(rows) == pytest.approx([0.008, 0.382, 0.61], abs=0.02)


def test_cross_fields_and_items_are_as_frequent_as_in_the_real_logs() -> None:
    """At the default size: in a small world users and items meet more often."""
    world = build_world(1, 8000)
    plan = draw_plan(1, 0, 8000, world)
    lines = Sampler(world, plan, 1.0).skeleton(0, 1000, np.zeros(2))
    rows, features = lines.labels.shape[0], lines.start[-1]
    tokens = dict(zip(SIDES, np.bincount(lines.field[:features], minlength=len(FIELDS)) / rows, strict=True))
    assert tokens["508"] == pytest.approx(0.70, abs=0.03)
    assert tokens["509"] == pytest.approx(0.22, abs=0.03)
    assert tokens["702"] == pytest.approx(0.22, abs=0.03)
    assert tokens["853"] == pytest.approx(1.40, abs=0.15)
    items = lines.id[:features][lines.field[:features] == ALI_CCP.index["205"]]
    _, seen = np.unique(items, return_counts=True)
    assert 0.3 < (seen == 1).mean() < 0.6
    assert seen[seen >= 5].sum() > 0.6 * rows


def test_history_lengths_and_impressions_have_the_real_means_and_tails(train: Half) -> None:
    records = list(train.common.values())
    for field, mean in (("109_14", 69.0), ("110_14", 250.0), ("127_14", 153.6), ("150_14", 135.9)):
        assert share(records, field) == pytest.approx(mean, rel=0.12)
    lengths = np.array([len(record.order) for record in records])
    assert 1 <= lengths.min() < 40 and 1500 < lengths.max() <= 2706
    impressions = np.array(list(Counter(row.head[3] for row in train.skeleton).values()))
    assert impressions.mean() == pytest.approx(57.9, rel=0.01)
    assert (impressions == 1).mean() == pytest.approx(0.012, abs=0.003)
    assert impressions.max() > 10 * impressions.mean()
    features = [len(row.order) for row in train.skeleton]
    assert max(features) <= 50


def test_histories_agree_with_what_is_shown(train: Half) -> None:
    """A user's history knows the categories shown to him far better than those shown to another."""
    contexts = list(train.common)
    another = dict(zip(contexts, contexts[1:] + contexts[:1], strict=True))
    start = build_world(OPTIONS.seed, OPTIONS.contexts).id_start
    shift = int(start[ALI_CCP.index["206"]] - start[ALI_CCP.index["109_14"]])
    own = other = 0
    for row in train.skeleton:
        for category in row.features.get("206", ()):
            own += category - shift in train.common[row.head[3]].features.get("109_14", ())
            other += category - shift in train.common[another[row.head[3]]].features.get("109_14", ())
    assert own > 1.5 * other


def test_dirt_is_there_and_only_valid_rows_have_a_truth(
    halves: tuple[Half, Half], logs: tuple[Path, dict]
) -> None:
    for split, half in zip(("train", "test"), halves, strict=True):
        valid = [int(row.head[0]) for row in half.skeleton if not is_dirty(row)]
        assert list(half.truth) == valid
        without_item = [row for row in half.skeleton if not {"205", "206", "207"} & set(row.features)]
        for row in without_item:
            assert not {"508", "509"} & set(row.features)
        counts = logs[1]["splits"][split]
        assert counts["dirt_conversion_without_click"] == len(half.skeleton) - len(valid) == 2
        assert counts["dirt_without_item"] == len(without_item) == 1
        anonymous = [row for row in half.skeleton if "101" not in half.common[row.head[3]].features]
        assert counts["rows_without_user_id"] == len(anonymous)
        assert 0 < len(anonymous) <= 0.0023 * len(half.skeleton)


def test_summary_counts_what_the_files_hold(halves: tuple[Half, Half], logs: tuple[Path, dict]) -> None:
    folder, summary = logs
    for split, half in zip(("train", "test"), halves, strict=True):
        counts, valid = summary["splits"][split], [row for row in half.skeleton if not is_dirty(row)]
        assert counts["rows"] == len(half.skeleton) and counts["contexts"] == len(half.common)
        assert counts["clicks"] == sum(int(row.head[1]) for row in valid)
        assert counts["conversions"] == sum(int(row.head[2]) for row in valid)
        assert counts["skeleton_bytes"] == (folder / f"sample_skeleton_{split}.csv").stat().st_size
        assert counts["common_bytes"] == (folder / f"common_features_{split}.csv").stat().st_size


def within_four_sigma(outcomes: np.ndarray, probabilities: np.ndarray) -> bool:
    """Does the number of events agree with the sum of their chances?"""
    spread = math.sqrt((probabilities * (1 - probabilities)).sum())
    return abs(outcomes.sum() - probabilities.sum()) < 4 * spread


def test_labels_are_drawn_from_the_truth(halves: tuple[Half, Half]) -> None:
    for half in halves:
        rows = [row for row in half.skeleton if not is_dirty(row)]
        labels = np.array([[int(row.head[1]), int(row.head[2])] for row in rows])
        truth = np.array([half.truth[int(row.head[0])] for row in rows])
        clicked = labels[:, 0] == 1
        assert (labels[:, 1] <= labels[:, 0]).all()
        for outcome, chance in (
            (labels[:, 0], truth[:, 0]),
            (labels[clicked, 1], truth[clicked, 1]),
            (labels[:, 1], truth[:, 0] * truth[:, 1]),
        ):
            for part in np.array_split(np.argsort(chance), 5):
                assert within_four_sigma(outcome[part], chance[part])


def test_rates_are_those_asked_for(train: Half) -> None:
    truth = np.array(list(train.truth.values()))
    assert truth[:, 0].mean() == pytest.approx(OPTIONS.ctr, rel=0.01)
    assert np.average(truth[:, 1], weights=truth[:, 0]) == pytest.approx(OPTIONS.cvr, rel=0.01)


def test_clicked_impressions_are_not_like_all(train: Half) -> None:
    """Sample selection bias: p_cvr is higher where people click."""
    truth = np.array(list(train.truth.values()))
    assert np.average(truth[:, 1], weights=truth[:, 0]) > 1.1 * truth[:, 1].mean()


def pairwise_auc(chance: np.ndarray, outcome: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order, ties half."""
    negatives = np.sort(chance[~outcome])
    below = np.searchsorted(negatives, chance[outcome], "left")
    not_above = np.searchsorted(negatives, chance[outcome], "right")
    return float((below + not_above).mean() / 2 / negatives.shape[0])


def test_best_reachable_auc_is_neither_noise_nor_a_gift() -> None:
    world = build_world(1, 1600)
    train, test = draw_plan(1, 0, 1600, world), draw_plan(1, 1, 800, world)
    intercepts = calibrate(Sampler(world, train, 1.0), 0.04, 0.15)
    labels = Sampler(world, test, 1.0).skeleton(0, test.segment_context.shape[0], intercepts).labels
    p_ctr, p_cvr = sigmoid(labels[:, :2] + intercepts).T
    click, conversion = labels[:, 2] == 1, (labels[:, 3] == 1) & (labels[:, 2] == 1)
    assert 0.72 < pairwise_auc(p_ctr, click) < 0.83
    assert 0.70 < pairwise_auc(p_cvr[click], conversion[click]) < 0.85
    assert 0.78 < pairwise_auc(p_ctr * p_cvr, conversion) < 0.92


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_bytes_depend_on_the_seed_and_not_on_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "CHUNK", 7)  # many chunks, so that two processes interleave
    runs = {"one": (1, 1), "two": (1, 2), "other": (2, 1)}
    for name, (seed, processes) in runs.items():
        make_logs(str(tmp_path / name), Options(contexts=40, seed=seed), processes, overwrite=False)
    one, two, other = (digest(tmp_path / name) for name in runs)
    assert one == two
    assert set(one) == {
        "_SUCCESS",
        "demo_logs.json",
        *(
            f"{kind}_{split}.csv"
            for split in ("train", "test")
            for kind in ("truth", "sample_skeleton", "common_features")
        ),
    }
    assert all(one[name] != other[name] for name in one if name != "_SUCCESS")


def test_chunks_of_any_size_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_logs(str(tmp_path / "whole"), Options(contexts=40), 1, overwrite=False)
    monkeypatch.setattr(drawing, "CHUNK", 3)
    make_logs(str(tmp_path / "pieces"), Options(contexts=40), 1, overwrite=False)
    assert digest(tmp_path / "whole") == digest(tmp_path / "pieces")


def test_list_scale_scales_the_histories() -> None:
    world = build_world(1, 400)
    plan = draw_plan(1, 0, 400, world)
    features = [Sampler(world, plan, scale).common(0, 400).start[-1] / 400 for scale in (0.0, 0.5, 1.0)]
    assert 1.0 <= features[0] < 9.5
    assert features[1] == pytest.approx(features[2] / 2, rel=0.05)


def test_smallest_world_is_possible(tmp_path: Path) -> None:
    summary = make_logs(str(tmp_path / "raw"), Options(contexts=2, list_scale=0.1), 1, overwrite=False)
    assert [counts["contexts"] for counts in summary["splits"].values()] == [2, 1]
    for split in ("train", "test"):
        half = read_half(tmp_path / "raw", split)
        assert {row.head[3] for row in half.skeleton} == set(half.common)


@pytest.mark.parametrize("contexts", [1, 7, 1000])
def test_impressions_keep_their_mean_at_any_size(contexts: int) -> None:
    impressions = draw_impressions(np.random.default_rng(0), contexts)
    assert impressions.min() >= 1
    assert impressions.mean() == pytest.approx(57.9, rel=0.02)


def test_solve_intercept_reaches_the_weighted_rate() -> None:
    rng = np.random.default_rng(5)
    logits, weights = rng.normal(size=1000), rng.random(1000)
    intercept = solve_intercept(logits, weights, 0.07)
    chances = [1 / (1 + math.exp(-logit - intercept)) for logit in logits]
    assert sum(c * w for c, w in zip(chances, weights, strict=True)) / weights.sum() == pytest.approx(
        0.07, rel=1e-9
    )


def test_only_demo_logs_are_replaced_and_only_when_told(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="--overwrite"):
        make_logs(str(out), Options(contexts=4), 1, overwrite=False)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="expected nothing, an empty folder or demo logs to replace"):
        make_logs(str(out), Options(contexts=4), 1, overwrite=True)
    (out / "mine.txt").unlink()
    make_logs(str(out), Options(contexts=4), 1, overwrite=True)
    make_logs(str(out), Options(contexts=5), 1, overwrite=True)
    summary = json.loads((out / "demo_logs.json").read_text())
    assert summary["options"]["contexts"] == 5 and summary["written_by"] == WRITTEN_BY


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(make_demo_logs, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make_logs(str(tmp_path / "raw"), Options(contexts=4), 1, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(ctr=2.0), "--ctr"),
        (Options(cvr=0.0), "--cvr"),
        (Options(contexts=1), "--contexts"),
        (Options(seed=-1), "--seed"),
        (Options(list_scale=-1.0), "--list-scale"),
    ],
)
def test_impossible_options_are_named(options: Options, named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        make_logs(str(tmp_path / "raw"), options, 1, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_command_reports_bad_options_in_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "jobs.make_demo_logs",
        "--out",
        str(tmp_path / "raw"),
        "--ctr",
        "2",
        "--cvr",
        "-1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--ctr" in done.stderr and "--cvr" in done.stderr
    assert not list(tmp_path.iterdir())
