"""`esmm.train --launcher spark` on Spark's own cluster and on YARN, beside two local workers."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from esmm.checkpoints.files import complete_checkpoints, newest_checkpoint
from esmm.checkpoints.state import read_state
from storage.filesystems import filesystem
from tests.cluster.test_yarn import SPARK_HOME
from tests.fixtures.cluster.hadoop import Hadoop
from tests.fixtures.cluster.processes import LOOPBACK, PROJECT, daemon, python_environment, run, wait_until
from tests.fixtures.cluster.standalone import Standalone
from tests.fixtures.sample_files import write_samples

pytestmark = pytest.mark.timeout(600)
SECONDS = 400  # for one training; a busy machine takes its time
CONFIG = {
    "model": {"embedding_dim": 4, "towers": [16, 8]},
    "train": {"batch_size": 32, "epochs": 2, "log_every": 5, "checkpoint_steps": 10},
}
WORKER = "horovod.spark.task.gloo_exec_fn"  # in the command line of a worker's process


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of about 20 steps and a configuration."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder / "train", num_rows=100, seed=1)
    write_samples(folder / "valid", num_rows=30, seed=2)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def options(place: Path, run_folder: Path, samples: str | None = None) -> list[str]:
    """Of esmm.train. samples: another place of the folders train and valid."""
    found = {"config": place / "config.yaml", "run": run_folder}
    found |= {name: f"{samples or place}/{name}" for name in ("train", "valid")}
    return [text for name, value in found.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def local_curve(place: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The learning curve of two workers that horovodrun has started."""
    folder = tmp_path_factory.mktemp("local")
    command = [str(Path(sys.executable).parent / "horovodrun"), "-np", "2", "-H", "localhost:2"]
    command += [sys.executable, "-m", "esmm.train", *options(place, folder / "run")]
    run(command, folder / "log", python_environment(), SECONDS)
    return learning_curve(folder / "run")


def learning_curve(run_folder: Path) -> np.ndarray:
    """Step and both losses of every report."""
    entries = [json.loads(line) for line in (run_folder / "train.jsonl").read_text().splitlines()]
    names = ("step", "loss_ctr", "loss_ctcvr")
    return np.array([[e[name] for name in names] for e in entries if e["kind"] == "train"])


def submit(
    master: str, *arguments: str, settings: dict[str, str] | None = None, workers: int = 2
) -> list[str]:
    """The command that trains on a cluster, with the project and its environment in their places."""
    conf = {
        "spark.pyspark.python": sys.executable,
        "spark.executor.cores": "1",
        "spark.executor.memory": "600m",
        "spark.driver.memory": "700m",
        "spark.ui.enabled": "false",
        **(settings or {}),
    }
    command = ["spark-submit", "--master", master]
    command += [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    return [*command, "esmm/train.py", "--launcher", "spark", "--num-workers", str(workers), *arguments]


def test_two_executors_train_what_two_local_workers_train(
    spark_cluster: Standalone, place: Path, local_curve: np.ndarray, tmp_path: Path
) -> None:
    command = submit(spark_cluster.url, *options(place, tmp_path / "run"))
    output = run(command, tmp_path / "log", python_environment(PYTHONPATH=str(PROJECT)), SECONDS)
    assert f"[0]<stdout>:{tmp_path / 'run'}: 2 epoch(s)" in output, "rank 0's words come to the driver"
    assert_same_curve(tmp_path / "run", local_curve)


def test_yarn_trains_on_samples_that_lie_on_hdfs(
    hadoop_cluster: Hadoop, place: Path, local_curve: np.ndarray, tmp_path: Path
) -> None:
    for folder in ("train", "valid"):
        fs, target = filesystem(f"{hadoop_cluster.url}/to_train_on/{folder}")
        for path in (place / folder).iterdir():
            fs.put_file(str(path), f"{target}/{path.name}")
    settings = {
        "spark.yarn.jars": f"local:{SPARK_HOME}/jars/*",
        "spark.yarn.maxAppAttempts": "1",
        "spark.executor.instances": "2",
        "spark.executor.memoryOverhead": "1g",
        "spark.yarn.appMasterEnv.SPARK_LOCAL_IP": LOOPBACK,
        "spark.executorEnv.SPARK_LOCAL_IP": LOOPBACK,
    }
    arguments = options(place, tmp_path / "run", f"{hadoop_cluster.url}/to_train_on")
    environment = {**hadoop_cluster.environment(), "PYTHONPATH": str(PROJECT)}
    run(submit("yarn", *arguments, settings=settings), tmp_path / "log", environment, SECONDS)
    assert_same_curve(tmp_path / "run", local_curve)


def assert_same_curve(run_folder: Path, expected: np.ndarray) -> None:
    found = learning_curve(run_folder)
    assert (run_folder / "_SUCCESS").exists()
    assert read_state(newest_checkpoint(run_folder)).world_size == 2
    assert len(expected) > 5
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_lost_worker_fails_the_command(spark_cluster: Standalone, place: Path, tmp_path: Path) -> None:
    arguments = [*options(place, tmp_path / "run"), "--set", "train.epochs=1000"]
    environment = python_environment(PYTHONPATH=str(PROJECT))
    with daemon(submit(spark_cluster.url, *arguments), tmp_path / "log", environment) as job:
        wait_until(lambda: bool(complete_checkpoints(tmp_path / "run")), SECONDS, [job])
        worker_process(spark_cluster, rank=1).send_signal(signal.SIGKILL)
        assert job.guard.wait(SECONDS) == 1
    output = (tmp_path / "log").read_text()
    [error] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Exit code: 137" in error
    assert "rank 0 stops: another worker has stopped" in output
    assert complete_checkpoints(tmp_path / "run"), "to --resume from"


def worker_process(cluster: Standalone, rank: int) -> psutil.Process:
    """The process of a rank."""
    found = [process for one in cluster.daemons for process in one.running(WORKER)]
    [process] = [one for one in found if one.environ().get("HOROVOD_RANK") == str(rank)]
    return process


def test_bad_input_is_one_message_and_exit_code_2(
    spark_cluster: Standalone, place: Path, tmp_path: Path
) -> None:
    command = submit(spark_cluster.url, *options(place, tmp_path / "run", f"{place}/nowhere"))
    output = run(command, tmp_path / "log", python_environment(PYTHONPATH=str(PROJECT)), SECONDS, code=2)
    message = f"error: {place}/nowhere/train: expected a folder of samples, found nothing."
    assert output.count(message) == 1


def test_more_workers_than_the_cluster_has_cores(
    spark_cluster: Standalone, place: Path, tmp_path: Path
) -> None:
    command = submit(spark_cluster.url, *options(place, tmp_path / "run"), workers=3)
    environment = python_environment(PYTHONPATH=str(PROJECT), HOROVOD_SPARK_START_TIMEOUT="15")
    output = run(command, tmp_path / "log", environment, SECONDS, code=2)
    assert "error: --num-workers: expected 3 Spark tasks to run at once, found fewer" in output
