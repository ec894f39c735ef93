"""The whole road on a real YARN with HDFS: raw logs, samples, predictions and metrics lie on HDFS."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest

from jobs.demo_logs.options import ShopOptions
from jobs.make_demo_logs import make_shop
from storage.filesystems import filesystem
from storage.json_files import read_json
from tests.cluster.conftest import Logs, WithIds, in_local_mode
from tests.fixtures.cluster.contents import (
    assert_same_ids,
    assert_same_samples,
    assert_same_values,
    names,
    table,
)
from tests.fixtures.cluster.hadoop import Hadoop
from tests.fixtures.cluster.processes import LOOPBACK, PROJECT, addresses_listened_on, run
from tests.programs.publish_at_once import FILES_OF_A_JOB, publish_at_once

pytestmark = pytest.mark.timeout(900)
SECONDS = 600  # for one job; a busy machine takes its time
SPARK_HOME = Path(pyspark.__file__).parent


@dataclass(frozen=True)
class Yarn:
    """The cluster, and how jobs are submitted to it."""

    hadoop: Hadoop
    logs: Logs
    output: Path

    def url(self, path: str) -> str:
        return f"{self.hadoop.url}/{path}"

    def submit(self, mode: str, script: str, *arguments: str, files: str = "", code: int | None = 0) -> str:
        """Run a job; what it printed where its driver ran here, else what the containers have written."""
        settings = {
            "spark.yarn.jars": f"local:{SPARK_HOME}/jars/*",
            # On HDFS, readable by all: unpacked once and not for every job.
            "spark.archives": f"{self.hadoop.url}/env.tar.gz#.venv",
            "spark.executor.instances": "2",
            "spark.executor.cores": "1",
            "spark.executor.memory": "512m",
            "spark.executor.memoryOverhead": "1g",
            "spark.driver.memory": "700m",
            # Its page and YARN's filter for it meet at the start of a driver in client mode; on a busy
            # machine this fails now and then (ConcurrentModificationException in Jetty).
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "4",
            "spark.yarn.appMasterEnv.SPARK_LOCAL_IP": LOOPBACK,
            "spark.executorEnv.SPARK_LOCAL_IP": LOOPBACK,
        }
        command = ["spark-submit", "--properties-file", "configs/spark/yarn.conf", "--deploy-mode", mode]
        command += ["--py-files", "dist/jobs.zip"]
        command += [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
        command += ["--files", files] if files else []
        log = self.output / f"{mode}-{Path(script).stem}.log"
        output = run([*command, script, *arguments], log, self.hadoop.environment(), SECONDS, code)
        return output if mode == "client" else self.hadoop.container_logs()

    def run_module(self, module: str, *arguments: str, workers: int = 1) -> str:
        """One of the project's other commands, on this machine."""
        command = [sys.executable, "-m", module, *arguments]
        if workers > 1:
            launcher = str(Path(sys.executable).parent / "horovodrun")
            command = [launcher, "-np", str(workers), "-H", f"localhost:{workers}", *command]
        return run(command, self.output / f"{module}.log", self.hadoop.environment(), SECONDS)


@pytest.fixture(scope="module")
def yarn(hadoop_cluster: Hadoop, logs: Logs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yarn]:
    """YARN with the packed environment, the configuration and the raw logs on its HDFS."""
    cluster = Yarn(hadoop_cluster, logs, tmp_path_factory.mktemp("output"))
    put(PROJECT / "dist/env.tar.gz", cluster.url("env.tar.gz"))
    for path in logs.folder.glob("*.csv"):
        put(path, cluster.url(f"raw/{path.name}"))
    return cluster


def put(path: Path, url: str) -> None:
    fs, target = filesystem(url)
    fs.put_file(str(path), target)


@pytest.fixture(scope="module")
def client_samples(yarn: Yarn) -> str:
    """Built with the driver on this machine."""
    out = yarn.url("samples/client")
    raw = yarn.logs.paths(folder=yarn.url("raw"))
    yarn.submit("client", "jobs/build_samples.py", *raw, "--out", out, "--config", str(yarn.logs.config))
    return out


@pytest.fixture(scope="module")
def cluster_samples(yarn: Yarn) -> str:
    """Built with the driver in a container, which is sent the configuration."""
    out = yarn.url("samples/cluster")
    raw = yarn.logs.paths(folder=yarn.url("raw"))
    arguments = [*raw, "--out", out, "--config", yarn.logs.config.name]
    yarn.submit("cluster", "jobs/build_samples.py", *arguments, files=str(yarn.logs.config))
    return out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a small shop and, built in local mode, their samples."""
    folder = tmp_path_factory.mktemp("shop") / "raw"
    make_shop(str(folder), ShopOptions(contexts=400, seed=2), overwrite=False)
    arguments = ["--schema", "configs/schemas/shop.yaml", "--config", "configs/shop.yaml"]
    for name in ("impressions", "contexts"):
        arguments += [f"--{name}", str(folder / f"{name}_train")]
    out = ["--out", str(folder / "samples")]
    in_local_mode("jobs/build_samples.py", [*arguments, *out], folder.parent / "build.log")
    return folder


def train(yarn: Yarn, samples: str, run_folder: Path) -> Path:
    """A model trained by two workers."""
    arguments = ["--config", str(yarn.logs.config), "--train", samples, "--valid", samples]
    yarn.run_module("esmm.train", *arguments, "--run", str(run_folder), workers=2)
    return run_folder


@pytest.fixture(scope="module")
def trained(yarn: Yarn, client_samples: str) -> Path:
    """A model whose workers read their samples from HDFS."""
    return train(yarn, client_samples, yarn.output / "run")


@pytest.fixture(scope="module")
def predictions(yarn: Yarn, client_samples: str, trained: Path) -> str:
    """Its predictions, written to HDFS."""
    out = yarn.url("predictions")
    yarn.run_module(
        "esmm.predict", "--run", str(trained), "--samples", client_samples, "--out", out, workers=2
    )
    return out


def test_the_daemons_listen_on_the_loopback_interface_only(yarn: Yarn):
    assert addresses_listened_on(yarn.hadoop.daemons) == {LOOPBACK}


def test_client_mode_makes_the_samples_of_local_mode(yarn: Yarn, client_samples: str, local_samples: Path):
    assert_same_samples(client_samples, str(local_samples))
    assert not [name for name in names(yarn.url("samples")) if name.startswith(".")]


def test_cluster_mode_makes_the_samples_of_local_mode(cluster_samples: str, local_samples: Path):
    assert_same_samples(cluster_samples, str(local_samples))


def test_training_on_hdfs_takes_the_steps_of_training_on_local_samples(
    yarn: Yarn, trained: Path, local_samples: Path
):
    found, expected = (
        learning_curve(folder) for folder in (trained, train(yarn, str(local_samples), yarn.output / "local"))
    )
    assert len(found) > 1
    assert found == expected


def learning_curve(run_folder: Path) -> list[dict[str, float]]:
    """What training has logged, but for how fast it went."""
    lines = [json.loads(line) for line in (run_folder / "train.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k and "share" not in k} for line in lines]


def test_predictions_on_hdfs_are_those_of_local_samples(
    yarn: Yarn, trained: Path, predictions: str, local_samples: Path
):
    local = str(yarn.output / "predictions")
    samples = str(local_samples)
    yarn.run_module("esmm.predict", "--run", str(trained), "--samples", samples, "--out", local, workers=2)
    found, expected = (table(folder).sort_by("sample_id") for folder in (predictions, local))
    assert found.num_rows > 1000
    assert found.equals(expected)


@pytest.fixture(scope="module")
def local_metrics(yarn: Yarn, predictions: str) -> str:
    """The file of the metrics that local mode computes of the same predictions."""
    out = yarn.output / "metrics.json"
    truth = yarn.url("raw/truth_train.csv")
    yarn.run_module("jobs.evaluate", "--predictions", predictions, "--truth", truth, "--out", str(out))
    return str(out)


@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_evaluation_on_yarn_gives_the_metrics_of_local_mode(
    yarn: Yarn, predictions: str, local_metrics: str, mode: str
):
    out, truth = yarn.url(f"metrics-{mode}.json"), yarn.url("raw/truth_train.csv")
    arguments = ["--predictions", predictions, "--truth", truth, "--out", out]
    yarn.submit(mode, "jobs/evaluate.py", *arguments)
    assert_same_values(out, local_metrics)
    assert 0.5 < read_json(out)["ctr"]["auc"]["value"] < 1


@pytest.fixture(scope="module")
def ids_on_hdfs(yarn: Yarn, known_ids: Logs) -> str:
    """The id table, made on YARN of the logs on HDFS."""
    out = yarn.url("ids")
    raw = known_ids.paths(folder=yarn.url("raw"))
    yarn.submit("client", "jobs/build_ids.py", *raw, "--out", out, "--config", str(known_ids.config))
    return out


@pytest.fixture(scope="module")
def samples_by_ids(yarn: Yarn, known_ids: Logs, ids_on_hdfs: str) -> str:
    """Built with that table, which all workers read from HDFS."""
    out = yarn.url("samples/ids")
    arguments = [*known_ids.paths(folder=yarn.url("raw")), "--out", out, "--ids", ids_on_hdfs]
    arguments += ["--config", known_ids.config.name]
    yarn.submit("cluster", "jobs/build_samples.py", *arguments, files=str(known_ids.config))
    return out


def test_the_id_table_is_that_of_local_mode(ids_on_hdfs: str, local: WithIds):
    assert_same_ids(ids_on_hdfs, str(local.ids))


def test_samples_by_an_id_table_on_hdfs_are_those_of_local_mode(samples_by_ids: str, local: WithIds):
    assert_same_samples(samples_by_ids, str(local.train))


@pytest.fixture(scope="module")
def other_half(yarn: Yarn, local: WithIds) -> str:
    """The other half, copied to HDFS as local mode has built it."""
    folder = yarn.url("samples/test")
    for path in local.test.glob("[!.]*"):
        if path.is_file():
            put(path, f"{folder}/{path.name}")
    return folder


@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_the_profile_is_that_of_local_mode(
    yarn: Yarn,
    known_ids: Logs,
    other_half: str,
    samples_by_ids: str,
    ids_on_hdfs: str,
    local: WithIds,
    mode: str,
):
    sent = str(known_ids.config) if mode == "cluster" else ""
    config = known_ids.config.name if mode == "cluster" else str(known_ids.config)
    out = yarn.url(f"profile-{mode}.json")
    arguments = ["--samples", other_half, "--against", samples_by_ids, "--ids", ids_on_hdfs]
    arguments += ["--config", config, "--out", out]
    yarn.submit(mode, "jobs/profile_samples.py", *arguments, files=sent)
    assert_same_values(out, str(local.profile))


@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_samples_of_tables_on_hdfs_are_those_of_local_mode(yarn: Yarn, shop: Path, mode: str):
    schema = PROJECT / "configs/schemas/shop.yaml"
    config = shop / "settings.yaml"  # YARN takes no two files of one name
    shutil.copy(PROJECT / "configs/shop.yaml", config)
    is_sent = mode == "cluster"  # to the driver in a container, which finds both beside it
    arguments = ["--schema", schema.name if is_sent else str(schema)]
    arguments += ["--config", config.name if is_sent else str(config)]
    for name in ("impressions", "contexts"):
        for path in (shop / f"{name}_train").iterdir():
            put(path, yarn.url(f"shop/{name}/{path.name}"))
        arguments += [f"--{name}", yarn.url(f"shop/{name}")]
    out = yarn.url(f"samples/shop-{mode}")
    sent = f"{schema},{config}" if is_sent else ""
    yarn.submit(mode, "jobs/build_samples.py", *arguments, "--out", out, files=sent)
    assert_same_samples(out, str(shop / "samples"))
    assert read_json(f"{out}/_manifest.json")["numbers"].keys() == {"price", "days_since_order"}


def test_a_failing_job_says_why(yarn: Yarn):
    raw = yarn.logs.paths(folder=yarn.url("nowhere"))
    out = yarn.url("samples/failed")
    output = yarn.submit("client", "jobs/build_samples.py", *raw, "--out", out, code=2)
    assert f"error: {yarn.url('nowhere')}/common_features_train.csv: no such file" in output
    assert not filesystem(out)[0].exists("/samples/failed")


def test_a_failing_driver_in_a_container_fails_the_command(yarn: Yarn):
    arguments = ["--predictions", yarn.url("nowhere"), "--out", yarn.url("m.json")]
    output = yarn.submit("cluster", "jobs/evaluate.py", *arguments, code=1)
    assert f"error: {yarn.url('nowhere')}: expected a folder of predictions, found nothing" in output


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_jobs_that_publish_at_once_one_wins_whole(yarn: Yarn, overwrite: bool):
    place = f"at-once-{overwrite}"
    outcome = publish_at_once(yarn.url(f"{place}/out"), jobs=4, rounds=3, overwrite=overwrite)
    for winners, content in outcome:
        assert len(winners) == (4 if overwrite else 1)
        assert len(content) == FILES_OF_A_JOB
        assert set(content) <= winners
        assert len(set(content)) == 1
    assert names(yarn.url(place)) == ["out"]
