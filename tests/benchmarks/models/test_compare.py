"""Comparing models: presets are read, runs become tables and a page, and a small comparison really runs."""

import json
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.models import compare, runs, summary
from benchmarks.models.page import compare_page
from benchmarks.models.presets import FOLDER, PLAIN, read_presets
from cli.errors import InputError
from esmm.config import Config
from esmm.model_config import ModelConfig
from tests.fixtures.report_runs import compared_run


def test_every_preset_is_a_configuration_and_every_model_has_one() -> None:
    presets = read_presets(sorted(path.stem for path in FOLDER.glob("*.yaml")))
    assert presets[0].name == "esmm"
    assert [one.name for one in presets if one.needs_actions] == ["esm2"]
    assert "esm2" not in {one.name for one in read_presets([])}
    for preset in presets:
        config = Config.load(str(FOLDER / f"{preset.name}.yaml"), [])
        assert Config.load("configs/demo.yaml", [*PLAIN, *preset.settings]).model == config.model
        assert preset.about and not preset.about.startswith("#")
    names = {Config.load(str(FOLDER / f"{preset.name}.yaml"), []).model.name for preset in presets}
    assert names == set(get_args(ModelConfig.model_fields["name"].annotation))


def test_a_model_that_is_not_there_is_told_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"--models mmoee: .*did you mean mmoe"):
        read_presets(["mmoee"])


def test_the_reference_is_trained_first_whatever_is_asked_for() -> None:
    assert [preset.name for preset in read_presets(["ple", "base"])] == ["esmm", "ple", "base"]


def test_a_row_has_mean_and_deviation_over_seeds() -> None:
    found = [compared_run("esmm", 1, 0.70), compared_run("esmm", 2, 0.74), compared_run("base", 1, 0.65)]
    column = summary.COLUMNS[0]
    assert summary.rows(found, [column]) == [["esmm", "0.7200 ± 0.0283"], ["base", "0.6500"]]
    assert summary.means(found, column)["esmm"] == pytest.approx((0.72, 0.0282843), rel=1e-4)


def test_an_undefined_figure_of_one_seed_is_not_averaged_away() -> None:
    broken = compared_run("esmm", 2, 0.7)
    broken["metrics"]["ctr"]["auc"]["value"] = None
    assert summary.rows([compared_run("esmm", 1, 0.7), broken], summary.COLUMNS[:1]) == [
        ["esmm", "undefined"]
    ]


def test_the_page_shows_every_model_and_what_was_frozen() -> None:
    found = [compared_run("esmm", 1, 0.70), compared_run("base", 1, 0.65)]
    page = compare_page(found, '{"seeds": [1]}', {"esmm": "Of the paper", "base": "Of clicks"}, "A note.")
    assert "<script" not in page
    for text in ("0.7000", "0.6500", "Of clicks", "A note.", "&#34;seeds&#34;: [1]"):
        assert text in page


@pytest.mark.slow
def test_a_small_comparison_runs_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--models", "base", "--seeds", "1", "--contexts", "200", "--out", str(tmp_path / "out")]
    arguments += ["--set", "train.batch_size=256"]
    monkeypatch.setattr("sys.argv", ["compare", *arguments])
    compare.main()
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [run["model"] for run in content["runs"]] == ["esmm", "base"]
    assert content["runs"][1]["metrics"]["against"]["run"].endswith("esmm-42/metrics.json")
    assert content["runs"][1]["parameters"] > 400_000
    frozen = json.loads((tmp_path / "out" / "frozen.json").read_text())
    assert frozen["models"]["base"]["settings"] == ['model.name="base"']
    monkeypatch.setattr(runs, "_train", lambda *_: pytest.fail("trained again"))
    compare.main()
    assert "AUC pCVR, all" in (tmp_path / "out" / "compare.md").read_text()
