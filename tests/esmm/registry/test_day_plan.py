"""The plan of a day as a command: beside a real registry, and the same when a day is run again."""

import json
import shutil
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
    assert (plan["train"], plan["missing"], plan["against"]) == (["2026-09-21"], [], ["2026-09-21"])
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
    assert (plan["parent"], plan["train"], plan["against"]) == (None, [], [])
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


SAMPLES_V1 = Path(__file__).resolve().parents[2] / "fixtures/samples_v1/samples"


@pytest.fixture
def real_samples(tmp_path: Path) -> Path:
    """Samples with manifests, of 20 and 21 September."""
    for day in (20, 21):
        shutil.copytree(SAMPLES_V1, tmp_path / f"real/ds=2026-09-{day}")
    return tmp_path / "real"


def _profile(folder: Path, samples: Path, broken: bool = False, rows: int = 0) -> None:
    """What the plan reads of a profile. rows: how far its counts are from those of the samples."""
    counts = json.loads((samples / "_manifest.json").read_text())["counts"]
    counts = {**counts, "rows": counts["rows"] + rows}
    gates = {"judged": 1, "skipped": [], "broken": [{"gate": "ctr"}] if broken else []}
    keys = ("source", "rates", "impressions_per_context", "duplicate_sample_ids", "quarantine", "fields")
    content = {key: {} for key in (*keys, "written_by")} | {"counts": counts, "gates": gates}
    folder.mkdir(exist_ok=True)
    (folder / f"{samples.name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("broken", "rows", "learnt"), [(False, 0, ["2026-09-20", "2026-09-21"]), (True, 0, []), (False, 1, [])]
)
def test_only_days_whose_profile_is_of_these_samples_and_broke_no_gate_are_learnt_from(
    real_samples: Path,
    broken: bool,
    rows: int,
    learnt: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profiles = real_samples.parent / "profiles"
    for day in ("ds=2026-09-20", "ds=2026-09-21"):
        _profile(profiles, real_samples / day, broken, rows)
    asked = ("--day", "2026-09-22", "--samples", real_samples, "--registry", real_samples.parent / "none")
    plan = _planned(capsys, monkeypatch, *asked, "--profiles", profiles)
    assert plan["train"] == learnt


def test_a_run_is_named_after_all_that_it_is_made_of(
    real_samples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = real_samples.parent / "config.yaml"
    config.write_text("train: {epochs: 1}\n")
    out = real_samples.parent / "plan.json"
    asked: tuple[object, ...] = ("--day", "2026-09-22", "--samples", real_samples)
    asked += ("--registry", real_samples.parent / "none", "--runs", "runs", "--config", config, "--out", out)

    def run(*more: object) -> str:
        return str(_planned(capsys, monkeypatch, *asked, *more)["run"])  # type: ignore[typeddict-item]

    first = run()
    assert first.startswith("runs/ds=2026-09-22/") and run() == first
    others = {run("--set", "train.epochs=2"), run("--window", "1")}
    config.write_text("train: {epochs: 3}\n")
    others.add(run())
    config.write_text("train: {epochs: 1}\n")
    assert run() == first
    path = real_samples / "ds=2026-09-21/_manifest.json"
    path.write_text(path.read_text().replace('"clicks": ', '"clicks": 1'))
    others.add(run())
    assert len(others | {first}) == 5


def test_another_window_makes_the_days_plan_anew(
    real_samples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--day", "2026-09-22", "--samples", real_samples, "--registry", real_samples.parent / "none")
    asked += ("--out", real_samples.parent / "plan.json")
    assert len(_planned(capsys, monkeypatch, *asked)["train"]) == 2
    shutil.rmtree(real_samples / "ds=2026-09-20")
    assert len(_planned(capsys, monkeypatch, *asked)["train"]) == 2
    assert _planned(capsys, monkeypatch, *asked, "--window", "1")["train"] == ["2026-09-21"]
