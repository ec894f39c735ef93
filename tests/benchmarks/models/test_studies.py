"""Studies beside a comparison: their tables and pages, and the parts that they compute themselves."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models import collapse, rates, worlds
from benchmarks.models.curves import curves_chart, spread
from benchmarks.models.page import compare_page
from benchmarks.models.study import Study, StudyTable, read_studies
from benchmarks.models.true_vectors import ITEM, USER, ModelWithVectors, TrueVectors
from benchmarks.models.world import keep_apart
from cli.errors import InputError
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.model.loss import Labels, click_loss, entire_space_loss
from esmm.model_config import ModelConfig
from jobs.demo_logs.latent import build_latent_world
from jobs.demo_logs.world import FIELDS
from jobs.report.blocks import Chart, Table
from schemas.hashing import bucket
from tests.fixtures.ali_ccp import ALI_CCP
from tests.fixtures.report_runs import compared_run
from tests.fixtures.sample_files import write_samples
from tests.fixtures.workers import ONE_WORKER

STUDY = Study(
    "collapse", "Why", "Two seeds.", [StudyTable("A caption", ["loss", "AUC"], [["clamped", "0.5"]])]
)


def test_a_study_comes_back_from_its_file_and_is_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    STUDY.write(tmp_path)
    assert "| clamped | 0.5 |" in capsys.readouterr().out
    (found,) = read_studies(tmp_path)
    assert found == STUDY
    page = compare_page([compared_run("esmm", 1, 0.7)], "{}", {"esmm": "Of the paper"}, "A note.", [found])
    for text in ("Two seeds.", "A caption", "clamped"):
        assert text in page


def test_clamped_losses_are_those_of_logits_until_the_clamp_takes_the_gradient() -> None:
    click, both = torch.tensor([1.0, 0, 1, 0]), torch.tensor([1.0, 0, 0, 0])
    labels = Labels(click, both)
    near = [torch.tensor([-1.0, 0.5, 2, -3]), torch.tensor([0.3, -2.0, -1, 1])]
    expected = torch.stack([click_loss(near[0], labels), entire_space_loss(*near, labels)])
    torch.testing.assert_close(collapse.clamped_sums(near, labels), expected)
    far = torch.full((4,), -20.0, requires_grad=True)
    (of_clamped,) = torch.autograd.grad(collapse.clamped_sums([near[0], far], labels)[1], far)
    (of_logits,) = torch.autograd.grad(entire_space_loss(near[0], far, labels), far)
    assert not of_clamped.any()
    assert of_logits[0] < -0.9  # the conversion pulls pCVR up again


def test_collapsed_runs_are_counted() -> None:
    same = {"rate": 0.02, "loss": "clamped", "start": "0.5", "auc_ctr": 0.7, "at_clamp": 1.0}
    runs = [
        {**same, "seed": 1, "auc_ctcvr": 0.5, "log_loss": 0.003},
        {**same, "seed": 2, "auc_ctcvr": 0.8, "log_loss": 0.001},
    ]
    ((*names, collapsed, auc, _, _),) = collapse.table(runs, constant=0.002).rows
    assert names == ["0.02", "clamped", "0.5"]
    assert (collapsed, auc) == ("1 of 2", "0.6500 [0.5000, 0.8000]")


def test_rates_are_rows_of_models_and_columns_of_shares() -> None:
    found = {("esmm", share): [{"auc_cvr": 0.6 + share / 10}] for share in (*rates.SHARES, 1.0)}
    table = rates.table(found, "auc_cvr")
    assert table.head == ["model", "1%", "5%", "20%", "100%"]
    assert table.rows == [["esmm", "0.6010", "0.6050", "0.6200", "0.7000"]]
    assert table.lines == {"esmm": [[0.01, 0.601], [0.05, 0.605], [0.2, 0.62], [1.0, 0.7]]}


def test_lines_of_a_study_are_a_chart_over_its_table(tmp_path: Path) -> None:
    found = {
        (model, share): [{"auc_cvr": 0.6 + bonus + share / 10}]
        for model, bonus in (("esmm", 0.0), ("base", 0.001))
        for share in (*rates.SHARES, 1.0)
    }
    Study("rates", "Less", "A lead.", [rates.table(found, "auc_cvr")]).write(tmp_path)
    (study,) = read_studies(tmp_path)
    (chart,) = study.section.blocks
    assert isinstance(chart, Chart)
    assert chart.numbers.rows[1] == ["base", "0.6020", "0.6060", "0.6210", "0.7010"]
    for text in ("esmm", "base", "20%", 'id="rates-0-title"'):
        assert text in chart.svg


@given(st.dictionaries(st.text(min_size=1), st.floats(0.4, 0.9), min_size=1, max_size=8))
def test_names_at_the_ends_of_lines_stand_apart_in_the_same_order(places: dict[str, float]) -> None:
    found = spread(places, 0.02)
    assert found.keys() == places.keys()
    order = sorted(found.values())
    assert all(b - a >= 0.02 - 1e-9 for a, b in pairwise(order))
    assert [places[name] for name in sorted(found, key=lambda name: found[name])] == sorted(places.values())
    assert np.mean(order) == pytest.approx(np.mean(list(places.values())))


@pytest.mark.parametrize("height", [0.5, 0.7])
def test_names_of_lines_that_end_together_are_all_in_the_picture(height: float) -> None:
    """Above the highest line and below the lowest, as here."""
    lines = {f"model{number}": [(0.01, 0.6), (1.0, height + number / 1e4)] for number in range(7)}
    chart = curves_chart("rates", lines, Table("AUC", ["model"], []))
    assert all(f">{name}<" in chart.svg for name in lines)


def test_rates_need_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a comparison, found none"):
        rates.frozen(tmp_path)


def test_an_auc_of_probable_positives_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 9, 60) / 10, rng.random(60)
    wins = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    pairs = positive[:, None] * (1 - positive)
    assert worlds.weighted_auc(scores, positive) == pytest.approx((wins * pairs).sum() / pairs.sum())


def test_shares_are_rows_of_worlds() -> None:
    runs = [
        {"world": 7, "model": worlds.DEFAULT, "seed": seed, "shares": [0.5 + seed / 10, 0.6, 0.7, 0.8]}
        for seed in (1, 2)
    ]
    assert worlds.table(runs).rows == [
        ["7: the default", "65.0 ± 7.1", "60.0 ± 0.0", "70.0 ± 0.0", "80.0 ± 0.0"]
    ]


def test_true_vectors_go_to_the_impressions_of_their_ids(tmp_path: Path) -> None:
    write_samples(tmp_path / "train", num_rows=6, seed=1, schema=ALI_CCP)
    loader = Loader(str(tmp_path / "train"), batch_size=1 << 10)
    (batch,) = loader.epoch(Position.start(0))
    vectors = TrueVectors.of(3, 50, ALI_CCP, loader.manifest["hash_seed"])
    world, first = build_latent_world(3, 50), FIELDS.index(USER)
    raw = int(world.id_start[first] + 4 * world.id_stride)
    row = bucket(USER, raw, ALI_CCP.buckets[USER], loader.manifest["hash_seed"])
    np.testing.assert_allclose(vectors.user[row], world.user_latent[4], rtol=1e-6)
    assert vectors.item.any(1).sum() > 0.9 * min(world.num_items, ALI_CCP.buckets[ITEM])
    # Whatever the table holds, each impression gets the row that its own id has.
    numbered = replace(vectors, item=torch.arange(1.0, len(vectors.item) + 1).unsqueeze(1))
    found = numbered.beside(batch)
    assert found.impression_numbers is not None
    bags = batch.impression
    for number in range(batch.num_impressions):
        begin = number * batch.num_impression_fields + vectors.places[1]
        ids = bags.ids[bags.offsets[begin] : bags.offsets[begin + 1]].tolist()
        expected = ids[0] - vectors.first[1] + 1 if ids else 0
        assert found.impression_numbers[number].item() == expected


def test_a_model_reads_the_vectors_as_one_more_field_of_each_side(tmp_path: Path) -> None:
    write_samples(tmp_path / "train", num_rows=4, seed=1, schema=ALI_CCP)
    loader = Loader(str(tmp_path / "train"), batch_size=1 << 10)
    (batch,) = loader.epoch(Position.start(0))
    batch = batch.with_request(ALI_CCP.num_rows, 1)
    vectors = TrueVectors.of(3, 50, ALI_CCP, loader.manifest["hash_seed"])
    config = ModelConfig(name="esmm_ns", embedding_dim=9, towers=[8], input_norm=True, cross_layers=1)
    torch.manual_seed(1)
    model = ModelWithVectors(config, ALI_CCP, ONE_WORKER, vectors)
    model.network.initialise()
    model.embedding.initialise(1, 0.05)
    found = []
    for scale in (0, 1):
        drawn = [scale * torch.randn(table.shape) for table in (vectors.user, vectors.item)]
        model.vectors = replace(vectors, user=drawn[0], item=drawn[1])
        found.append(model.forward(batch)[0])
    assert all((a - b).abs().min() > 0 for a, b in zip(*found, strict=True))


def test_a_folder_keeps_to_the_world_that_was_drawn_in_it(tmp_path: Path) -> None:
    keep_apart(tmp_path, ["--seed", "1"])
    keep_apart(tmp_path, ["--seed", "1"])
    with pytest.raises(InputError, match="expected a world drawn with --seed 2, found one with --seed 1"):
        keep_apart(tmp_path, ["--seed", "2"])


def test_logs_of_an_unknown_world_are_not_taken_for_another(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "_SUCCESS").touch()
    with pytest.raises(InputError, match="expected world.json beside it, found none"):
        keep_apart(tmp_path, ["--seed", "1"])
