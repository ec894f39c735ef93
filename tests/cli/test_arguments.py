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


@pytest.mark.parametrize("word", ["--predictionz=x", "--predictons", "--pedictions"])
def test_a_mistyped_option_is_told_with_the_nearest_one(
    parser: CommandParser, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parser.parse_args([word])
    assert end.value.code == 2
    assert f"unrecognized arguments: {word} (did you mean --predictions?)" in capsys.readouterr().err


def test_a_mistyped_option_is_told_also_where_it_is_required(
    parser: CommandParser, capsys: pytest.CaptureFixture[str]
) -> None:
    parser.add_argument("--config", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--confg", "x.yaml"])
    assert "--confg (did you mean --config?)" in capsys.readouterr().err


def test_what_is_short_for_an_option_is_that_option(parser: CommandParser) -> None:
    assert parser.parse_args(["--pred=x", "--over"]).predictions == "x"


def test_what_is_like_no_option_is_told_as_it_is(
    parser: CommandParser, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("stray", "--zzz"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--overwrite", word])
        assert f"unrecognized arguments: {word}. See --help." in capsys.readouterr().err


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
