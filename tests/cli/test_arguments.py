"""What a command says of an option that there is not, and its version."""

import pytest

from cli.arguments import CommandParser
from cli.version import VERSION


@pytest.fixture
def parser() -> CommandParser:
    made = CommandParser("jobs.example", "Does something.\n\n    keeps its lines", "example:\n  run it\n")
    made.add_argument("--predictions")
    made.add_argument("--overwrite", action="store_true")
    return made


@pytest.mark.parametrize("word", ["--prediction=x", "--predictons", "--pedictions"])
def test_a_mistyped_option_is_told_with_the_nearest_one(
    parser: CommandParser, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # argparse takes what begins an option for it, so `--prediction` alone would be understood
    parser.allow_abbrev = False
    with pytest.raises(SystemExit) as end:
        parser.parse_args([word])
    assert end.value.code == 2
    assert f"unrecognized arguments: {word} (did you mean --predictions?)" in capsys.readouterr().err


def test_what_is_like_no_option_is_told_as_it_is(
    parser: CommandParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--overwrite", "stray", "--zzz"])
    assert "unrecognized arguments: stray, --zzz. See --help." in capsys.readouterr().err


def test_help_keeps_the_lines_and_ends_with_the_examples(parser: CommandParser) -> None:
    text = parser.format_help()
    assert "usage: python -m jobs.example" in text
    assert "    keeps its lines\n" in text
    assert text.endswith("example:\n  run it\n")


def test_version(parser: CommandParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"jobs.example {VERSION}\n"
