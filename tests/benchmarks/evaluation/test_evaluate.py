"""The benchmark of evaluation runs to its end on few rows, and both routes agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_whole_on_few_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.evaluation.evaluate", "--rows", "20000", "--sizes", "1", "2"]
    done = subprocess.run(
        [*command, "--repeats", "1", "--out", str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "evaluate.json").read_text())["measured"]
    assert [size["rows"] for size in found] == [20000, 40000]
    assert all(size["ours_bytes"] > 0 and size["scikit_seconds"] > 0 for size in found)
    assert "40,000" in done.stdout
