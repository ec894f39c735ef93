"""dist/jobs.zip is all that a job needs of this project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.dist import PROJECT, zip_code
from tests.fixtures.ali_ccp import ALI_CCP

COMMANDS = sorted(path.stem for path in (PROJECT / "jobs").glob("*.py") if "def main()" in path.read_text())


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist") / "jobs.zip"
    zip_code(target)
    return target


def run(code: Path, *arguments: str) -> str:
    """What a Python says that has only the zip on its path, beside its packages."""
    environment = os.environ | {"PYTHONPATH": str(code)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=code.parent, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_every_command_can_be_imported_from_the_zip(code: Path) -> None:
    assert {"build_samples", "build_ids", "evaluate", "profile_samples"} <= set(COMMANDS)
    program = (
        "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"
    )
    found = run(code, "-c", program, *(f"jobs.{name}" for name in COMMANDS))
    assert found.split() == [f"{code}/jobs/{name}.py" for name in COMMANDS]


def test_the_default_schema_is_in_the_zip(code: Path) -> None:
    assert run(code, "-m", "jobs.describe_schema").startswith(f"{ALI_CCP.name}: ")


def test_the_same_code_is_the_same_bytes(code: Path, tmp_path: Path) -> None:
    zip_code(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == code.read_bytes()
