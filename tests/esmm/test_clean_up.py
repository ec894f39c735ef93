"""Old days go, the newest and the runs of versions in use stay, and nothing else is touched."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esmm import clean_up
from esmm.clean_up import Keep, clean, keep_of, outdated, runs_in_use
from esmm.registry.store import State, Version

DAY = date(2026, 11, 22)


def _days(folder: Path, *back: int) -> list[Path]:
    made = []
    for number in back:
        path = folder / f"ds={DAY - timedelta(days=number)}"
        (path / "run").mkdir(parents=True)
        (path / "_SUCCESS").touch()
        made.append(path)
    return made


@given(st.sets(st.integers(-3, 40)), st.integers(1, 20))
def test_those_of_the_last_days_stay_and_all_later_ones(back: set[int], keep: int) -> None:
    names = {f"ds={DAY - timedelta(days=number)}": number for number in back}
    gone = outdated([*names, "index.html", "ds=none", "ds=2026-11-1x"], DAY, keep)
    assert {names[name] for name in gone} == {number for number in back if number >= keep}


def test_old_days_go_and_other_names_stay(tmp_path: Path) -> None:
    old, new = _days(tmp_path, 3, 2)
    (tmp_path / "index.html").touch()
    assert clean(Keep(str(tmp_path), 3), DAY, (), dry=True) == 1 and old.exists()
    assert clean(Keep(str(tmp_path), 3), DAY, (), dry=False) == 1
    assert sorted(tmp_path.iterdir()) == sorted([new, tmp_path / "index.html"])
    assert clean(Keep(str(tmp_path / "none"), 3), DAY, (), dry=False) == 0


def test_a_run_in_use_keeps_its_day(tmp_path: Path) -> None:
    used, other = _days(tmp_path, 30, 31)
    assert clean(Keep(str(tmp_path), 3), DAY, {used / "run"}, dry=False) == 1
    assert used.exists() and not other.exists()


def _version(number: int, **tags: str) -> Version:
    return Version(number, "run", {"run": f"/runs/{number}", **tags})


def test_runs_in_use_are_those_with_an_alias_and_where_a_rollback_leads() -> None:
    versions = [_version(1), _version(2, promoted_from="1"), _version(3), _version(4, promoted_from="2")]
    versions += [_version(5)]
    state = State({one.number: one for one in versions}, {"champion": 4, "previous": 2, "candidate": 5})
    assert {path.name for path in runs_in_use(state)} == {"1", "2", "4", "5"}


@pytest.mark.parametrize("text", ["samples", "samples=", "samples=0", "=3", "samples=-1"])
def test_a_mistaken_keep_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["clean_up", "--day", "2026-11-22", "--registry", "none", f"--keep={text}"]
    )
    with pytest.raises(SystemExit):
        clean_up.main()
    assert "expected FOLDER=DAYS with at least one day" in capsys.readouterr().err


def test_a_folder_may_hold_an_equals_sign() -> None:
    assert keep_of("data/ds=x/runs=14") == Keep("data/ds=x/runs", 14)
