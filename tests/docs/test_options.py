"""Every option says what it means, on the terminal and in docs/options.md."""

import subprocess
import sys

import pytest

from cli.option_help import WIDTH, Option, help_text, options_of
from esmm.config import Config
from jobs.samples_config import SamplesConfig
from scripts import options_doc

OPTIONS = [option for name, model in options_doc.SECTIONS.items() for option in options_of(name, model)]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_says_what_it_means(option: Option) -> None:
    assert option.meaning.endswith("."), f"{option.name}: its class lacks a docstring below it"
    if option.values.endswith("or null"):
        assert "null: " in option.meaning


def test_the_page_is_up_to_date() -> None:
    assert options_doc.PATH.read_text() == options_doc.page(), "run `make docs`"


def test_all_sections_of_a_run_are_there() -> None:
    assert Config.model_fields.keys() == options_doc.RUN_SECTIONS.keys()


def test_names_are_those_of_set_and_values_those_of_the_classes() -> None:
    found = {option.name: option for option in OPTIONS}
    learning_rate = found["optimizer.sparse.learning_rate"]
    assert (learning_rate.values, learning_rate.default) == ("number > 0", "0.05")
    assert found["train.seed"].values == "integer >= 0 and < 2^31"
    assert found["train.device"].values == "auto | cpu | cuda"
    assert found["model.towers"].default == "[360, 200, 80]"
    assert found["profile.gates.ctr"].values == "[number from 0 to 1, number from 0 to 1] or null"
    assert found["tracking.mlflow.uri"].default == "null"


def test_the_text_fits_a_terminal() -> None:
    lines = help_text(options_doc.SECTIONS).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "  samples.hash_seed = 0    (integer >= 0 and < 2^63)" in lines


@pytest.mark.parametrize(
    ("command", "shown", "not_shown"),
    [
        ("esmm.train", "  train.epochs = 1    (integer > 0)", "samples."),
        ("jobs.build_samples", "  samples.hash_seed = 0    (integer >= 0 and < 2^63)", "train."),
    ],
)
def test_a_command_shows_its_own_sections_and_needs_no_other_option(
    command: str, shown: str, not_shown: str
) -> None:
    said = subprocess.run(
        [sys.executable, "-m", command, "--help-options"], capture_output=True, text=True, check=True
    )
    lines = said.stdout.splitlines()
    assert shown in lines
    assert not any(line.strip().startswith(not_shown) for line in lines)


def test_an_option_without_a_docstring_is_seen() -> None:
    class Later(SamplesConfig):
        new: int = 1

    assert options_of("samples", Later)[-1] == Option("samples.new", "integer", "1", "")
