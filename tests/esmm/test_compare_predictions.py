"""Predictions of a champion are those it was judged by, or the difference is told."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from esmm import compare_predictions
from esmm.compare_predictions import largest_difference, read


def _write(folder: Path, files: list[dict[str, Sequence[float]]]) -> str:
    folder.mkdir()
    for number, columns in enumerate(files):
        pq.write_table(pa.table(columns), folder / f"part-{number:05d}.parquet")
    rows = sum(len(columns["sample_id"]) for columns in files)
    (folder / "_manifest.json").write_text(json.dumps({"rows": rows, "run": "r", "step": 1}))
    (folder / "_SUCCESS").touch()
    return str(folder)


def _rows(ids: list[int], p_cvr: list[float]) -> dict[str, Sequence[float]]:
    return {"sample_id": ids, "p_ctr": [0.1] * len(ids), "p_cvr": p_cvr, "p_ctcvr": [0.01] * len(ids)}


@pytest.mark.parametrize(
    ("ids", "p_cvr", "expected"),
    [
        ([3, 1, 2], [0.3, 0.1, 0.2], 0.0),
        ([3, 1, 2], [0.3, 0.1, 0.25], 0.05),
        ([3, 1, 2], [0.3, float("nan"), 0.2], float("inf")),
        ([3, 1, 4], [0.3, 0.1, 0.2], float("inf")),
        ([3, 1], [0.3, 0.1], float("inf")),
    ],
)
def test_rows_are_matched_by_sample_id_however_they_are_dealt(
    tmp_path: Path, ids: list[int], p_cvr: list[float], expected: float
) -> None:
    again = _write(tmp_path / "again", [_rows(ids[:1], p_cvr[:1]), _rows(ids[1:], p_cvr[1:])])
    before = _write(tmp_path / "before", [_rows([1, 2, 3], [0.1, 0.2, 0.3])])
    assert largest_difference(read(again), read(before)) == pytest.approx(expected)


def test_another_model_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [_write(tmp_path / str(p), [_rows([1], [p])]) for p in (0.1, 0.2)]
    monkeypatch.setattr("sys.argv", ["compare", "--predictions", paths[0], "--expected", paths[0]])
    compare_predictions.main()
    assert capsys.readouterr().out == "1 impressions, largest difference 0\n"
    monkeypatch.setattr("sys.argv", ["compare", "--predictions", paths[0], "--expected", paths[1]])
    with pytest.raises(InputError, match=r"within 1e-06, found a difference of 0\.1\. Do not serve"):
        compare_predictions.main()
