"""Steps of models in turns: the table's ratios, and a small real measurement."""

from pathlib import Path

import pytest

from benchmarks.models import speed
from tests.fixtures.sample_files import write_samples


def test_a_row_has_medians_and_their_ratio_to_the_reference() -> None:
    found = {8: {"esmm": [0.1, 0.2, 0.9], "ple": [0.3, 0.3, 0.1]}}
    assert speed.row("ple", [8], found) == ["ple", "300.0", "1.50"]
    assert speed.row("esmm", [8], found) == ["esmm", "200.0", "1.00"]


def test_models_take_turns_on_real_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(tmp_path / "train", num_rows=60, seed=1)
    arguments = [
        "--samples",
        str(tmp_path / "train"),
        "--models",
        "ddpo",
        "--batch-sizes",
        "16",
        "--steps",
        "2",
    ]
    monkeypatch.setattr("sys.argv", ["speed", *arguments])
    speed.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| model | 16, ms | ratio |"
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["esmm", "ddpo"]
