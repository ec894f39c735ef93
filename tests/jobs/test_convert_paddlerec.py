"""PaddleRec's text to raw logs: the demo's logs, joined as PaddleRec has them, come back as they were."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import InputError
from jobs import convert_paddlerec
from jobs.convert_paddlerec import BadLineError, Sides, convert, find_files, write_logs
from jobs.demo_logs.options import Options
from jobs.make_demo_logs import make_logs
from tests.fixtures.ali_ccp import ALI_CCP

SIDES = Sides.of(ALI_CCP)
Features = frozenset[tuple[str, str]]


def _features(text: str) -> Features:
    """(field, id) of a raw feature list."""
    return frozenset(tuple(one.split("\x03")[0].split("\x02")) for one in text.split("\x01"))  # type: ignore[misc]


def _common(path: Path) -> dict[str, Features]:
    lines = [line.split(",", 2) for line in path.read_text().splitlines()]
    for _, count, text in lines:
        assert int(count) == len(text.split("\x01"))
    assert len({key for key, *_ in lines}) == len(lines)
    return {key: _features(text) for key, _, text in lines}


def _impressions(folder: Path, split: str = "") -> dict[str, tuple[str, str, Features, Features]]:
    """By sample id: labels, the features of the context, those of the impression."""
    common = _common(folder / f"common_features{split}.csv")
    found = {}
    for line in (folder / f"sample_skeleton{split}.csv").read_text().splitlines():
        sample, click, conversion, context, count, text = line.split(",", 5)
        assert int(count) == len(text.split("\x01"))
        found[sample] = click, conversion, common[context], _features(text)
    return found


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paddlerec") / "raw"
    make_logs(str(folder), Options(contexts=30, list_scale=0.1, cvr=0.3), 1, overwrite=False)
    return folder


@pytest.fixture(scope="module")
def text(raw: Path) -> list[str]:
    """The training half as PaddleRec's lines."""
    lines = []
    for sample, (click, conversion, user, item) in _impressions(raw, "_train").items():
        tokens = [f"{field}:{feature}" for field, feature in sorted(user | item)]
        lines.append(",".join([sample, click, conversion, *tokens]))
    return lines


def test_logs_come_back_with_each_context_once(raw: Path, text: list[str], tmp_path: Path) -> None:
    (tmp_path / "part-0").write_text("\n".join(text[:700]) + "\n")
    with gzip.open(tmp_path / "part-1.gz", "wt") as stream:
        stream.write("\n".join(text[700:]))  # without a last line end
    done = write_logs(str(tmp_path / "out"), find_files([f"{tmp_path}/part-*"]), ALI_CCP, 0.0, False)
    assert _impressions(tmp_path / "out") == _impressions(raw, "_train")
    users = {user for _, _, user, _ in _impressions(raw, "_train").values()}
    assert len(_common(tmp_path / "out" / "common_features.csv")) == len(users) == len(done.contexts)
    summary = json.loads((tmp_path / "out" / "converted.json").read_text())
    assert (summary["lines"], summary["contexts"], summary["rejected"]) == (len(text), len(users), {})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "head"),
        ("x,1,0,101:3,205:4", "head"),
        ("1,2,0,101:3,205:4", "head"),
        ("1,1,0,101:3,205", "feature"),
        ("1,1,0,101:3,205:-4", "feature"),
        ("1,1,0,101:3,999:4", "field"),
        ("1,1,0,101:0,205:4", "no_user_fields"),
    ],
)
def test_broken_lines_have_a_reason(line: str, reason: str) -> None:
    with pytest.raises(BadLineError, match=f"^{reason}$"):
        convert(line, SIDES)


def test_zero_pads_and_the_order_of_the_user_s_features_does_not_matter() -> None:
    one = convert("7,1,0,101:3,205:4,109_14:8,109_14:9,216:0", SIDES)
    other = convert("8,0,0,109_14:9,101:3,109_14:8,205:5", SIDES)
    assert one.skeleton == f"7,1,0,{one.context},1,205\x024\x031.0\n"
    assert one.context == other.context and one.common == other.common
    assert one.common.split(",")[1] == "3"


def test_rejected_lines_are_kept_and_too_many_stop_it(text: list[str], tmp_path: Path) -> None:
    path = tmp_path / "part-0"
    path.write_text("\n".join([*text[:50], "broken", *text[50:99]]) + "\n")
    with pytest.raises(InputError, match=r"1 of 100 lines .*head 1.*--max-broken-share 0.001"):
        write_logs(str(tmp_path / "out"), [str(path)], ALI_CCP, 0.001, False)
    assert not (tmp_path / "out").exists()
    write_logs(str(tmp_path / "out"), [str(path)], ALI_CCP, 0.01, False)
    assert (tmp_path / "out" / "rejected.csv").read_text() == f"head,{path},51,broken\n"
    assert len(_impressions(tmp_path / "out")) == 99


def test_nothing_to_convert_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file, found none"):
        find_files([f"{tmp_path}/part-*"])
    (tmp_path / "empty").write_text("")
    with pytest.raises(InputError, match="expected lines of PaddleRec's text, found none"):
        write_logs(str(tmp_path / "out"), [str(tmp_path / "empty")], ALI_CCP, 0.5, False)


@given(st.text(max_size=60))
def test_any_text_is_converted_or_rejected(line: str) -> None:
    try:
        found = convert(line, SIDES)
    except BadLineError:
        return
    assert found.skeleton.count("\n") == found.common.count("\n") == 1


def test_the_command_says_what_it_made(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "part").write_text("\n".join(text[:200]))
    arguments = ["--input", str(tmp_path / "part"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["convert_paddlerec", *arguments])
    convert_paddlerec.main()
    assert f"{tmp_path}/out: 200 lines, " in capsys.readouterr().out
