"""The commands on a real registry: candidates come, are promoted or kept, and go back."""

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.errors import InputError
from esmm.registry.commands import COMMANDS, EXIT_NO_CHAMPION
from esmm.registry.place import place_of, reading
from esmm.registry.store import State, Store
from storage.locks import wait_for_lock
from tests.esmm.registry.conftest import Ask
from tests.fixtures.metrics_v2 import drawn_metrics
from tests.fixtures.registered import compared, make_trained, metrics_of, write_metrics

GOOD = {"ctr": 0.001, "cvr": 0.001, "ctcvr": 0.001}


def state_of(registry: Path) -> State:
    with reading(place_of(str(registry), None), "esmm") as store:
        return store.read()


def enter(ask: Ask, run: Path, champion: Path, day: str, parent: int = 1, **auc: float) -> Path:
    """Register a run that was compared with the champion's; the path of its metrics."""
    make_trained(run, run.name)
    metrics = compared(run, champion, GOOD | auc)
    ask("register", "--run", run, "--day", day, "--parent", parent, "--metrics", metrics)
    return metrics


def test_the_first_candidate_is_champion_without_a_comparison(registry: Path, first: Path, ask: Ask) -> None:
    state = state_of(registry)
    tags = state.versions[1].tags
    assert state.aliases == {"champion": 1}
    assert (tags["day"], tags["judged_on"], tags["decision"]) == ("2026-09-20", "2026-09-21", "promoted")
    assert tags["run"] == str(first) and "parent" not in tags and "promoted_from" not in tags
    told = json.loads(ask("champion", "--json"))
    days = {"day": "2026-09-20", "judged_on": "2026-09-21"}
    assert told == {"version": 1, "run": str(first), "checkpoint": "step-000468", **days}


def test_mlflow_has_parameters_metrics_and_artifacts(registry: Path, first: Path) -> None:
    with reading(place_of(str(registry), None), "esmm") as store:
        run = store.client.get_run(store.read().versions[1].run_id)
    auc = json.loads((first / "metrics.json").read_text())["ctr"]["auc"]
    assert run.data.params == {"train.epochs": "1", "model.towers": "[200, 80]"}
    assert [run.data.metrics[f"ctr_auc{end}"] for end in ("", "_low", "_high")] == [
        auc[key] for key in ("value", "low", "high")
    ]
    files = Path(str(run.info.artifact_uri).removeprefix("file://"))
    assert {path.name for path in files.iterdir()} == {"metrics.json", "config.yaml"}
    assert files.is_relative_to(first.parent / "registry" / "artifacts")


def test_a_candidate_that_loses_nothing_takes_the_place_of_its_parent(
    registry: Path, first: Path, ask: Ask, tmp_path: Path
) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    assert state_of(registry).aliases == {"champion": 1, "candidate": 2}
    out = tmp_path / "decision.json"
    asked = ("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22", "--out", out)
    assert ask(*asked).startswith("version 2 on 2026-09-22: promoted, all 11 gates are passed\n")
    state, decision = state_of(registry), json.loads(out.read_text())
    assert state.aliases == {"champion": 2, "previous": 1}
    assert decision["differences"]["cvr"]["error"] == pytest.approx(0.004 / 1.959963984540054)
    assert (decision["champion"], decision["parent"], decision["trained_to"]) == (1, 1, "2026-09-21")
    assert state.versions[2].tags["promoted_from"] == "1" and state.versions[2].verdict == decision
    shown = ask("show").splitlines()
    assert "champion" in shown[3] and "0.6788" in shown[3] and "2026-09-22" in shown[3]
    # and again: the same decision, nothing else
    assert ask(*asked).endswith(f"decided before, at {decision['decided_at']}; nothing was changed\n")
    assert json.loads(out.read_text()) == decision and state_of(registry) == state


def test_registering_again_gives_the_same_version(
    registry: Path, first: Path, ask: Ask, tmp_path: Path
) -> None:
    run = tmp_path / "two"
    metrics = enter(ask, run, first, "2026-09-21")
    asked = ("register", "--run", run, "--parent", 1, "--metrics", metrics, "--day")
    assert ask(*asked, "2026-09-21").startswith("version 2 of esmm")
    assert list(state_of(registry).versions) == [1, 2]
    with pytest.raises(InputError, match="--parent 2: expected 1, .* is version 2"):
        COMMANDS["register"](
            ["--registry", str(registry), *map(str, [*asked[1:3], "--parent", 2])]
            + ["--metrics", str(metrics), "--day", "2026-09-21"]
        )
    assert ask(*asked, "2026-09-22").startswith("version 3 of esmm")
    make_trained(run, "trained again")
    compared(run, first, GOOD)
    assert ask(*asked, "2026-09-21").startswith("version 4 of esmm")


def test_a_loss_is_kept_with_the_reason_and_days_are_pooled(
    registry: Path, first: Path, ask: Ask, tmp_path: Path
) -> None:
    """Three thin days: half widths of 0.02 against a margin of 0.01 need four of them, 0.015 need three."""
    said = []
    for day in (1, 2, 3):
        run = make_trained(tmp_path / f"run{day}", str(day))
        metrics = compared(run, first, dict.fromkeys(GOOD, 0.0), half=0.018)
        ask("register", "--run", run, "--day", f"2026-09-2{day}", "--parent", 1, "--metrics", metrics)
        said.append(ask("decide", "--version", day + 1, "--metrics", metrics, "--day", f"2026-09-2{day + 1}"))
    # 1.645 / 1.96 * 0.018 = 0.0151; over sqrt(2) 0.0107; over sqrt(3) 0.0087
    for text, low, decision in zip(
        said, ("-0.0151", "-0.0107", "-0.0087"), ("kept", "kept", "promoted"), strict=True
    ):
        assert f": {decision}, " in text and f"above {low}, has to be above -0.01" in text
    assert state_of(registry).aliases == {"champion": 4, "previous": 1}


def test_only_one_of_two_that_are_decided_at_once_is_promoted(
    registry: Path, first: Path, ask: Ask, tmp_path: Path
) -> None:
    words = []
    for version, name in ((2, "two"), (3, "three")):
        metrics = enter(ask, tmp_path / name, first, "2026-09-21")
        out = ["--out", str(tmp_path / f"{version}.json"), "--metrics", str(metrics)]
        words.append(["--version", str(version), "--day", "2026-09-22", *out])
    copy = shutil.copytree(registry, tmp_path / "copy")  # which no connection of this process is open to
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def decide(more: list[str]) -> None:
        start.wait()
        COMMANDS["decide"](["--registry", str(copy), *more])

    racers = [context.Process(target=decide, args=(more,)) for more in words]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0]
    found = {version: json.loads((tmp_path / f"{version}.json").read_text()) for version in (2, 3)}
    assert sorted(one["decision"] for one in found.values()) == ["kept", "promoted"]
    winner, loser = sorted(found, key=lambda version: found[version]["decision"] == "kept")
    assert state_of(copy).aliases["champion"] == winner
    assert found[loser]["reason"].startswith("its parent is no longer champion")


def test_rollback_and_the_next_decision(registry: Path, first: Path, ask: Ask, tmp_path: Path) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    ask("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22")
    with pytest.raises(InputError, match="--champion 1: found version 2"):
        ask("rollback", "--champion", 1)
    told = ask("rollback", "--champion", 2, "--reason", "revenue fell")
    assert told == "version 1 of esmm is champion again, after version 2\n"
    state = state_of(registry)
    assert state.aliases == {"champion": 1}
    assert (state.versions[2].tags["decision"], state.versions[2].tags["reason"]) == (
        "rolled back",
        "revenue fell",
    )
    with pytest.raises(InputError, match="expected a champion and one before it, found none"):
        ask("rollback")
    # its old decision stands and does nothing; on other metrics it is not decided again
    assert "nothing was changed" in ask("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22")
    with pytest.raises(InputError, match="expected a candidate, found one that was rolled back"):
        ask("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-23")
    assert state_of(registry) == state
    metrics = enter(ask, tmp_path / "three", first, "2026-09-22")
    assert "promoted" in ask("decide", "--version", 3, "--metrics", metrics, "--day", "2026-09-23")
    assert state_of(registry).aliases == {"champion": 3, "previous": 1}


def test_promotion_by_force_and_two_steps_back(registry: Path, first: Path, ask: Ask, tmp_path: Path) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21", ctcvr=-0.05)
    assert ": kept, broken: AUC of CTCVR (all) against" in ask(
        "decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22"
    )
    assert ask("promote", "--version", 2, "--reason", "I know") == "version 2 of esmm is champion\n"
    assert ask("promote", "--version", 2, "--reason", "I know").endswith("already\n")
    enter(ask, tmp_path / "three", first, "2026-09-22")
    ask("promote", "--version", 3, "--reason", "I still know")
    state = state_of(registry)
    assert state.aliases == {"champion": 3, "previous": 2}
    assert state.versions[2].tags["decision"] == "promoted by force"
    ask("rollback")
    assert state_of(registry).aliases == {"champion": 2, "previous": 1}
    ask("rollback")
    assert state_of(registry).aliases == {"champion": 1}


@pytest.mark.parametrize(
    ("day", "parent", "reason"),
    [
        (
            "2026-09-20",
            1,
            "broken: later than the champion\n",
        ),
        (
            "2026-09-21",
            2,
            "its parent is no longer champion: the candidate's parent is version 2, the champion version 1",
        ),
    ],
)
def test_what_may_not_follow_is_kept(
    ask: Ask, first: Path, registry: Path, tmp_path: Path, day: str, parent: int, reason: str
) -> None:
    enter(ask, tmp_path / "two", first, "2026-09-21")
    metrics = enter(ask, tmp_path / "three", first, day, parent)
    assert f"kept, {reason}" in ask("decide", "--version", 3, "--metrics", metrics, "--day", "2026-09-22")
    assert state_of(registry).aliases == {"champion": 1}


class CutOffError(BaseException):
    """Nothing may catch it, as nothing catches a kill."""


@pytest.mark.parametrize("writes", range(11))
def test_a_change_that_is_cut_off_is_finished_by_the_next(
    writes: int, registry: Path, first: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion makes 11 writes: the note, six tags, three aliases, the end of the note."""
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    asked = ("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22")
    before = state_of(registry)
    with monkeypatch.context() as patched:
        cut_off_after(writes, patched)
        with pytest.raises(CutOffError):
            ask(*asked)
    seen = state_of(registry)
    if writes == 0:
        assert seen == before
    else:
        assert seen.aliases == {"champion": 2, "previous": 1}
        assert seen.versions[2].tags["decision"] == "promoted"
    ask(*asked)
    state = state_of(registry)
    assert state.aliases == {"champion": 2, "previous": 1}
    with reading(place_of(str(registry), None), "esmm") as store:
        model = store.client.get_registered_model("esmm")
    assert model.tags == {} and {name: int(one) for name, one in model.aliases.items()} == state.aliases


def cut_off_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End a process, as far as MLflow can tell, after so many of its writes."""
    from mlflow import MlflowClient

    done = []
    for action in ("set", "delete"):
        for what in ("registered_model_tag", "model_version_tag", "registered_model_alias"):
            real = getattr(MlflowClient, f"{action}_{what}")

            def write(self: Any, *args: Any, real: Any = real) -> None:
                if len(done) == writes:
                    raise CutOffError
                real(self, *args)
                done.append(args)

            monkeypatch.setattr(MlflowClient, f"{action}_{what}", write)


@pytest.mark.parametrize(
    "step", ["create_run", "log_dict", "create_model_version", "set_registered_model_tag"]
)
def test_a_registration_that_is_cut_off_is_taken_up_again(
    step: str, registry: Path, first: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    real = getattr(MlflowClient, step)

    def cut(self: Any, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, step, cut)
        with pytest.raises(CutOffError):
            enter(ask, tmp_path / "two", first, "2026-09-21")
    enter(ask, tmp_path / "two", first, "2026-09-21")
    state = state_of(registry)
    assert list(state.versions) == [1, 2] and state.aliases == {"champion": 1, "candidate": 2}
    with reading(place_of(str(registry), None), "esmm") as store:
        experiment = store.client.get_experiment_by_name("esmm-registry")
        assert experiment and len(store.client.search_runs([experiment.experiment_id])) == 2


def test_a_configuration_sets_the_gates(ask: Ask, first: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"promotion": {"margin": {"cvr": 0.003, "ctcvr": None}}}))
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21", ctcvr=-0.2)
    asked = ("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22", "--config", config)
    assert "AUC of CTCVR (all) against" not in ask(*asked)  # lower bound of CVR: 0.001 - 0.0034


def test_the_lock_of_another_process_is_named(ask: Ask, registry: Path) -> None:
    wanted = rf"{registry}/\.lock: waited 0.1 s .* held by process \d+ on .*"
    with wait_for_lock(registry / ".lock", 0), pytest.raises(InputError, match=wanted):
        ask("promote", "--version", 1, "--reason", "no", "--wait", 0.1)


def test_a_version_that_there_is_not_is_told_with_the_nearest(ask: Ask, first: Path) -> None:
    with pytest.raises(InputError, match="version 7: expected one of .* the nearest is 1"):
        ask("decide", "--version", 7, "--metrics", first / "metrics.json", "--day", "2026-09-22")


def test_metrics_of_another_run_or_another_champion_are_refused(
    ask: Ask, first: Path, registry: Path, tmp_path: Path
) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    before = state_of(registry)
    asked = ("decide", "--version", 2, "--day", "2026-09-22", "--metrics")
    with pytest.raises(
        InputError, match=rf"expected an evaluation of the run {tmp_path}/two, found one of {first}"
    ):
        ask(*asked, first / "metrics.json")
    with pytest.raises(InputError, match="expected a comparison with version 1, the champion, found none"):
        ask(*asked, write_metrics(tmp_path / "alone.json", metrics_of(tmp_path / "two")))
    compared(tmp_path / "two", make_trained(tmp_path / "other"), GOOD)
    with pytest.raises(
        InputError, match=rf"expected a comparison with the run {first} .* found one with .*/other"
    ):
        ask(*asked, metrics)
    with pytest.raises(InputError, match="--day 2026-09-21: expected a day after 2026-09-21"):
        ask(*asked[:4], "2026-09-21", "--metrics", metrics)
    assert state_of(registry) == before


def test_a_candidate_that_was_trained_again_is_refused(ask: Ask, first: Path, tmp_path: Path) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    (tmp_path / "two/checkpoints/step-000468/state.json").write_text("{}")
    with pytest.raises(
        InputError, match="expected the checkpoint of version 2 as it was registered, found another"
    ):
        ask("decide", "--version", 2, "--day", "2026-09-22", "--metrics", metrics)


def test_a_champion_whose_folder_was_deleted_names_the_ways_out(
    ask: Ask, first: Path, tmp_path: Path
) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    ask("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22")
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(
        InputError, match="checkpoint of version 2, found none. .* rollback or esmm.registry promote"
    ):
        ask("champion")
    ask("rollback")
    with pytest.raises(InputError, match="checkpoint of version 2, found none. Promote another"):
        ask("promote", "--version", 2, "--reason", "back")
    assert "version 1" in ask("champion")


def test_metrics_without_conversions_keep_the_champion(
    ask: Ask, first: Path, registry: Path, tmp_path: Path
) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    found = json.loads(metrics.read_text())
    found["ctcvr"] = drawn_metrics(clicks=False)["ctcvr"]
    found["cvr"]["auc"]["value"] = float("nan")
    write_metrics(metrics, found)
    told = ask("decide", "--version", 2, "--metrics", metrics, "--day", "2026-09-22")
    assert ": kept, broken: conversions, AUC of CVR (clicked) above constant, AUC of CTCVR" in told
    assert "0 conversions on 1 day, at least 50 are asked for" in told
    assert state_of(registry).aliases == {"champion": 1}


def test_a_registry_that_is_missing_or_broken_is_named(registry: Path, ask: Ask, tmp_path: Path) -> None:
    (registry / "mlflow.db").write_bytes(b"no database any more" * 100)
    for command in ("show", "champion", "rollback"):
        with pytest.raises(InputError, match="mlflow.db: expected an SQLite database, found something else"):
            ask(command)
    (registry / "mlflow.db").unlink()
    with pytest.raises(InputError, match="mlflow.db: expected the registry's database, found none"):
        ask("champion")
    with pytest.raises(InputError, match=f"{tmp_path}/none: expected a folder"):
        COMMANDS["rollback"](["--registry", str(tmp_path / "none")])
    with pytest.raises(InputError, match="expected --lock DIR"):
        COMMANDS["rollback"](["--registry", f"sqlite:///{tmp_path}/x.db"])


def test_there_is_no_champion_before_the_first_registration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            COMMANDS["champion"](["--registry", str(tmp_path / "none"), *more])
        assert end.value.code == EXIT_NO_CHAMPION
    told, as_json = capsys.readouterr().out.splitlines()
    assert told == "esmm has no champion"
    assert json.loads(as_json) == dict.fromkeys(("version", "run", "day", "judged_on", "checkpoint"))


def test_a_model_of_another_name_is_another_list(registry: Path) -> None:
    with reading(place_of(str(registry), None), "other") as store:
        assert isinstance(store, Store) and store.read() == State({}, {})


def test_the_plan_the_margin_and_the_exit_code_of_a_scheduler(
    registry: Path, first: Path, ask: Ask, tmp_path: Path
) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21", ctcvr=-0.02)
    words = ("--version", 2, "--metrics", metrics, "--day", "2026-09-22")
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"missing": ["2026-09-19", "2026-09-20"]}))
    with pytest.raises(SystemExit) as ended:
        ask("decide", *words, "--exit-kept", 99)
    assert ended.value.code == 99
    other = compared(tmp_path / "two", first, GOOD | {"ctcvr": -0.021})
    words = ("--version", 2, "--metrics", other, "--day", "2026-09-22", "--margin", 0.05)
    said = ask("decide", *words, "--plan", plan)
    assert "kept, broken: days of training" in said
    assert "missing: 2026-09-19, 2026-09-20; at most 1 may be" in said
    other = compared(tmp_path / "two", first, GOOD | {"ctcvr": -0.022})
    with pytest.raises(InputError, match="--margin -1: expected a number above 0"):
        ask("decide", *words[:-1], -1)
    assert "promoted" in ask("decide", *words)


def test_register_answers_with_the_version(registry: Path, ask: Ask, tmp_path: Path) -> None:
    run = make_trained(tmp_path / "two", "two")
    words = ("--run", run, "--day", "2026-09-21", "--parent", 1, "--metrics", run / "metrics.json")
    assert json.loads(ask("register", *words, "--json")) == {"version": 2, "run": str(run)}


def test_a_promotion_stands_whatever_mended_logs_show(
    registry: Path, first: Path, ask: Ask, tmp_path: Path
) -> None:
    metrics = enter(ask, tmp_path / "two", first, "2026-09-21")
    words = ("--version", 2, "--metrics", metrics, "--day", "2026-09-22")
    assert "promoted" in ask("decide", *words)
    before = state_of(registry)
    compared(tmp_path / "two", first, GOOD | {"ctcvr": -0.5})
    said = ask("decide", *words)
    assert "promoted, all 11 gates" in said and "nothing was changed" in said
    assert state_of(registry) == before
