"""schemas, storage and cli need nothing but Python: what needs a library imports it inside a function."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
# The client of HDFS, imported where a path begins with hdfs://.
NEED_A_LIBRARY = {"storage.hdfs"}


def _modules(package: str) -> set[str]:
    names = {path.stem for path in (PROJECT / package).glob("*.py")} - {"__init__"}
    return {f"{package}.{name}" for name in names}


def _import_without_libraries(modules: set[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-S", "-c", f"import {', '.join(sorted(modules))}"]  # -S: no site-packages
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("package", ["schemas", "storage", "cli"])
def test_a_package_is_imported_without_any_library(package: str) -> None:
    found = _import_without_libraries(_modules(package) - NEED_A_LIBRARY)
    assert found.returncode == 0, found.stderr


def test_what_needs_a_library_is_still_true() -> None:
    for module in NEED_A_LIBRARY:
        assert "No module named" in _import_without_libraries({module}).stderr
