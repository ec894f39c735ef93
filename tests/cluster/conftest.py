"""What the cluster tests share: the packed jobs, small logs, and what local mode makes of them."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.hadoop import Hadoop, hadoop
from tests.cluster.processes import PROJECT, python_environment, run
from tests.cluster.standalone import Standalone, standalone

CONFIG = """
samples: {max_broken_share: 0.05, rows_per_row_group: 8, raw_bytes_per_file: 600000, buckets: {BUCKETS}}
loader: {shuffle_window: 64}
model: {embedding_dim: 4, towers: [16, 8]}
train: {batch_size: 512, epochs: 1, seed: 3}
"""
LARGE_FIELDS = ("101", "110_14", "127_14", "150_14", "205", "207", "216", "509", "702", "853")


@dataclass(frozen=True)
class Logs:
    """Raw demo logs. config: samples of several small files, a tiny model."""

    folder: Path
    config: Path

    def paths(self, split: str = "train", folder: str | None = None) -> list[str]:
        """Options of build_samples for the logs here, or for the same names in another place."""
        place = folder or str(self.folder)
        skeleton, common = f"{place}/sample_skeleton_{split}.csv", f"{place}/common_features_{split}.csv"
        return ["--skeleton", skeleton, "--common", common]


@pytest.fixture(scope="session")
def packed() -> None:
    """dist/jobs.zip and dist/env.tar.gz of the code as it is now."""
    folder = PROJECT / "build"
    folder.mkdir(exist_ok=True)
    run([sys.executable, "-m", "scripts.dist"], folder / "dist.log", python_environment(), 600)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    folder = tmp_path_factory.mktemp("logs")
    command = ["jobs.make_demo_logs", "--out", str(folder / "raw"), "--contexts", "200"]
    command += ["--list-scale", "0.2", "--processes", "1"]
    run([sys.executable, "-m", *command], folder / "make.log", python_environment(), 120)
    config = folder / "tiny.yaml"
    buckets = ", ".join(f'"{name}": 4096' for name in LARGE_FIELDS)
    config.write_text(CONFIG.replace("{BUCKETS}", "{" + buckets + "}"))
    return Logs(folder / "raw", config)


@pytest.fixture(scope="session")
def local_samples(logs: Logs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What local mode makes of the training half, started by spark-submit as on a cluster."""
    folder = tmp_path_factory.mktemp("local")
    command = ["spark-submit", "--properties-file", "configs/spark/local.conf", "--master", "local[2]"]
    command += ["jobs/build_samples.py", *logs.paths(), "--out", str(folder / "samples")]
    command += ["--config", str(logs.config)]
    run(command, folder / "build.log", python_environment(), 240)
    return folder / "samples"


@pytest.fixture(scope="module")
def spark_cluster(packed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone(tmp_path_factory.mktemp("standalone")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def hadoop_cluster(packed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hadoop]:
    with hadoop(tmp_path_factory.mktemp("hadoop")) as cluster:
        yield cluster
