"""A day's logs are whole, not yet, or wrong: which of them, and what the message says."""

from pathlib import Path

import pytest

from cli.errors import InputError
from jobs import delivered

BOTH = ("sample_skeleton", "common_features")


def _make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ((), ["_SUCCESS"]),
        (("sample_skeleton.csv", "common_features.csv"), ["_SUCCESS"]),
        (("sample_skeleton.csv", "common_features.csv", "_SUCCESS"), []),
        (("sample_skeleton/part-0.csv", "sample_skeleton/_SUCCESS"), ["common_features/_SUCCESS"]),
        (tuple(f"{side}/{name}" for side in BOTH for name in ("part-0.csv", "_SUCCESS")), []),
        (("sample_skeleton/a.csv", "common_features/a.csv", "_SUCCESS"), []),
    ],
)
def test_a_day_is_whole_by_its_mark_or_by_one_of_each_side(
    tmp_path: Path, names: tuple[str, ...], missing: list[str]
) -> None:
    _make(tmp_path, *names)
    assert delivered.read_missing(str(tmp_path)) == missing


def test_a_folder_that_is_not_there_has_not_come_yet(tmp_path: Path) -> None:
    assert delivered.read_missing(str(tmp_path / "ds=2026-11-22")) == ["_SUCCESS"]


def test_a_mark_beside_one_side_alone_is_half_a_day(tmp_path: Path) -> None:
    _make(tmp_path, "sample_skeleton.csv", "_SUCCESS")
    with pytest.raises(InputError, match="expected logs of both sides beside _SUCCESS, .* common_features"):
        delivered.read_missing(str(tmp_path))


def test_sides_of_tables(tmp_path: Path) -> None:
    _make(tmp_path, "impressions/part-0.parquet", "impressions/_SUCCESS", "contexts/part-0.parquet")
    assert delivered.read_missing(str(tmp_path), delivered.TABLES) == ["contexts/_SUCCESS"]
    _make(tmp_path, "contexts/_SUCCESS")
    assert delivered.read_missing(str(tmp_path), delivered.TABLES) == []
    assert delivered.read_missing(str(tmp_path)) == ["_SUCCESS"]


@pytest.mark.parametrize(("names", "code"), [((), 3), (("sample_skeleton.csv",), 3)])
def test_the_command_says_not_yet_by_its_exit_code(
    tmp_path: Path,
    names: tuple[str, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _make(tmp_path, *names)
    monkeypatch.setattr("sys.argv", ["delivered", "--raw", f"{tmp_path}/"])
    with pytest.raises(SystemExit) as ended:
        delivered.main()
    assert ended.value.code == code
    assert capsys.readouterr().out == f"{tmp_path}: not whole yet, _SUCCESS missing\n"
