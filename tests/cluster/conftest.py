"""What the cluster tests share: the packed jobs, small logs, and what local mode makes of them."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.cluster.hadoop import Hadoop, hadoop
from tests.fixtures.cluster.processes import PROJECT, python_environment, run
from tests.fixtures.cluster.standalone import Standalone, standalone

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


def in_local_mode(script: str, arguments: list[str], log: Path) -> None:
    """Run a job in local mode, started by spark-submit as on a cluster."""
    command = ["spark-submit", "--properties-file", "configs/spark/local.conf", "--master", "local[2]"]
    run([*command, script, *arguments], log, python_environment(), 240)


@pytest.fixture(scope="session")
def local_samples(logs: Logs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What local mode makes of the training half."""
    folder = tmp_path_factory.mktemp("local")
    out = ["--out", str(folder / "samples"), "--config", str(logs.config)]
    in_local_mode("jobs/build_samples.py", [*logs.paths(), *out], folder / "build.log")
    return folder / "samples"


@pytest.fixture(scope="session")
def known_ids(logs: Logs) -> Logs:
    """The same logs; of three fields only some ids are known, so that they need an id table."""
    tables = 'samples: {min_count: {"101": 2, "205": 2}, vocabulary: ["205", "206"], '
    config = logs.config.with_name("ids.yaml")
    config.write_text(logs.config.read_text().replace("samples: {", tables))
    return Logs(logs.folder, config)


@dataclass(frozen=True)
class WithIds:
    """What local mode makes of these logs: the id table, both halves built with it, and their profile."""

    ids: Path
    train: Path
    test: Path
    profile: Path


@pytest.fixture(scope="session")
def local(known_ids: Logs, tmp_path_factory: pytest.TempPathFactory) -> WithIds:
    folder = tmp_path_factory.mktemp("local-ids")
    made = WithIds(*(folder / name for name in ("ids", "train", "test", "profile.json")))
    config = ["--config", str(known_ids.config)]
    out = ["--out", str(made.ids)]
    in_local_mode("jobs/build_ids.py", [*known_ids.paths(), *config, *out], folder / "ids.log")
    for split, samples in (("train", made.train), ("test", made.test)):
        out = ["--out", str(samples), "--ids", str(made.ids)]
        arguments = [*known_ids.paths(split), *config, *out]
        in_local_mode("jobs/build_samples.py", arguments, folder / f"{split}.log")
    arguments = ["--samples", str(made.test), "--against", str(made.train), "--out", str(made.profile)]
    in_local_mode("jobs/profile_samples.py", [*arguments, *config], folder / "profile.log")
    return made


@pytest.fixture(scope="module")
def spark_cluster(packed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone(tmp_path_factory.mktemp("standalone")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def hadoop_cluster(packed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hadoop]:
    with hadoop(tmp_path_factory.mktemp("hadoop")) as cluster:
        yield cluster
