"""Two jobs that write the same output at the same time: one of them publishes, whole."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas import manifest
from tests.fixtures.raw_lines import RawLogs, random_logs, write_logs

pytestmark = pytest.mark.slow


def start(folder: Path, logs: RawLogs, out: Path, *options: str) -> "subprocess.Popen[str]":
    folder.mkdir()
    skeleton, common = write_logs(folder, logs)
    command = [sys.executable, "-m", "jobs.build_samples", "--skeleton", skeleton, "--common", common]
    return subprocess.Popen(
        [*command, "--out", str(out), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_output_is_that_of_one_job(tmp_path: Path, overwrite: bool):
    """The jobs read different logs, so it shows whose samples are there."""
    out = tmp_path / "out" / "samples"
    options = ["--overwrite"] if overwrite else []
    logs = [random_logs(seed=seed, num_contexts=50) for seed in (1, 2)]
    jobs = [start(tmp_path / f"raw-{n}", one, out, *options) for n, one in enumerate(logs)]
    errors = [job.communicate(timeout=280)[1] for job in jobs]
    codes = [job.returncode for job in jobs]
    assert sorted(codes) == ([0, 0] if overwrite else [0, 2]), errors
    if not overwrite:
        refused = errors[codes.index(2)].splitlines()[-1]
        assert refused.startswith(f"error: {out}: another job has published there while this one was running")
    contexts = set(pq.read_table(sorted(out.glob("part-*.parquet")))["context_id"].to_pylist())
    whose = [contexts <= {line.split(",")[0] for line in one.common} for one in logs]
    assert sum(whose) == 1
    assert manifest.read(str(out))["counts"]["impressions"] == len(logs[whose.index(True)].skeleton)
    if not overwrite:
        assert whose.index(True) == codes.index(0)
    assert [path.name for path in out.parent.iterdir()] == ["samples"]
