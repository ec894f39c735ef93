"""A registry with a champion, copied for each test: to make MLflow's tables takes seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from esmm.registry.commands import COMMANDS
from tests.fixtures.registered import make_trained

Ask = Callable[..., str]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from nothing by the commands: version 1, trained up to 2026-09-20, is champion."""
    folder = tmp_path_factory.mktemp("registry")
    run = make_trained(folder / "first", "first")
    where = ["--registry", str(folder / "registry")]
    metrics = ["--metrics", str(run / "metrics.json")]
    COMMANDS["register"]([*where, "--run", str(run), "--day", "2026-09-20", *metrics])
    COMMANDS["decide"]([*where, "--version", "1", "--day", "2026-09-21", *metrics])
    return folder


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template / "registry", tmp_path / "registry")


@pytest.fixture
def first(template: Path) -> Path:
    """The run of version 1. Not to be changed."""
    return template / "first"


@pytest.fixture
def ask(registry: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command; what it printed."""

    def run(command: str, *words: object) -> str:
        capsys.readouterr()
        COMMANDS[command](["--registry", str(registry), *map(str, words)])
        return capsys.readouterr().out

    return run
