"""The samples that the benchmarks of training read: those of `make bench`."""

import logging
import subprocess
import sys
from pathlib import Path

from benchmarks import bench
from storage import publishing

LOG = logging.getLogger("benchmarks.training.samples")
DEFAULT = Path("build/bench")


def make_samples(data: Path = DEFAULT) -> Path:
    """The samples below a folder, drawn and built where they are missing."""
    samples = data / "samples"
    if not publishing.is_complete(str(samples)):
        bench.draw_logs(data / "raw")
        LOG.info("building samples")
        command = [sys.executable, "-m", "jobs.build_samples", "--config", "configs/demo.yaml"]
        command += ["--skeleton", str(data / "raw/sample_skeleton_train.csv")]
        command += ["--common", str(data / "raw/common_features_train.csv"), "--out", str(samples)]
        subprocess.run(command, check=True, capture_output=True)
    return samples
