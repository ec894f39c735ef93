"""The plan of a day as a command: beside a real registry, and the same when a day is run again."""

import json
from pathlib import Path

import pytest

from cli.errors import InputError
from esmm import day_plan
from tests.esmm.registry.conftest import Ask
from tests.fixtures.registered import make_trained


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Samples of 19 to 23 September; the last is not whole yet."""
    for day in range(19, 24):
        folder = tmp_path / "samples" / f"ds=2026-09-{day}"
        folder.mkdir(parents=True)
        if day < 23:
            (folder / "_SUCCESS").touch()
    return tmp_path / "samples"


def _planned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> day_plan.Plan:
    monkeypatch.setattr("sys.argv", ["day_plan", *map(str, words)])
    capsys.readouterr()
    day_plan.main()
    plan: day_plan.Plan = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return plan


def test_a_day_that_runs_again_keeps_its_plan_although_there_is_another_champion(
    samples: Path,
    registry: Path,
    first: Path,
    ask: Ask,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = samples.parent / "plans" / "ds=2026-09-22.json"
    asked = ("--day", "2026-09-22", "--samples", samples, "--registry", registry, "--out", out)
    plan = _planned(capsys, monkeypatch, *asked)
    assert plan["parent"] == 1 and plan["warm_start"] == str(first)
    assert (plan["train"], plan["missing"], plan["against"]) == (["2026-09-21"], [], "2026-09-21")
    run = make_trained(samples.parent / "other", "other")
    metrics = ("--metrics", run / "metrics.json")
    ask("register", "--run", run, "--day", "2026-09-21", "--parent", 1, *metrics)
    ask("promote", "--version", 2, "--reason", "a test")
    assert _planned(capsys, monkeypatch, *asked) == plan
    assert _planned(capsys, monkeypatch, *asked[:-2])["parent"] == 2


def test_before_there_is_a_registry_the_first_day_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--day", "2026-09-19", "--samples", tmp_path / "samples", "--registry", tmp_path / "registry")
    plan = _planned(capsys, monkeypatch, *words)
    assert (plan["parent"], plan["train"], plan["against"]) == (None, [], None)
    assert not (tmp_path / "registry").exists()


def test_a_folder_that_is_no_day_is_named(samples: Path) -> None:
    (samples / "ds=yesterday").mkdir()
    (samples / "ds=yesterday" / "_SUCCESS").touch()
    with pytest.raises(InputError, match="ds=yesterday: expected a day as ds=YYYY-MM-DD"):
        day_plan.days_with_samples(str(samples))


def test_periods_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch, samples: Path) -> None:
    words = ["--day", "2026-09-22", "--samples", str(samples), "--registry", "none", "--window", "0"]
    monkeypatch.setattr("sys.argv", ["day_plan", *words])
    with pytest.raises(InputError, match="expected at least 1 and 0, found 0 and 28"):
        day_plan.main()
