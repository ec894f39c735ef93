"""The jobs on a real Spark standalone cluster: two workers with one executor each."""

import gzip
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.conftest import Logs
from tests.fixtures.cluster.contents import assert_same_ids, assert_same_samples, assert_same_values, names
from tests.fixtures.cluster.processes import addresses_listened_on, daemon, run, wait_until
from tests.fixtures.cluster.standalone import Standalone

pytestmark = pytest.mark.timeout(600)
SECONDS = 400  # for one job; a busy machine takes its time
EXECUTOR = "CoarseGrainedExecutorBackend"


def submit(cluster: Standalone, script: str, arguments: list[str], *settings: str) -> list[str]:
    """The command that runs a job on the cluster. settings: NAME=VALUE for Spark."""
    command = ["spark-submit", "--properties-file", "configs/spark/standalone.conf", "--master", cluster.url]
    command += ["--py-files", "dist/jobs.zip"]
    small = ("spark.executor.cores=1", "spark.executor.memory=600m", "spark.driver.memory=1g")
    for setting in (*small, *settings):
        command += ["--conf", setting]
    return [*command, script, *arguments]


def build_samples(cluster: Standalone, logs: Logs, out: Path, *settings: str) -> list[str]:
    """The command that builds samples there."""
    arguments = [*logs.paths(), "--out", str(out), "--config", str(logs.config)]
    return submit(cluster, "jobs/build_samples.py", arguments, *settings)


def test_the_daemons_listen_on_the_loopback_interface_only(spark_cluster: Standalone):
    assert addresses_listened_on(spark_cluster.daemons) == {"127.0.0.1"}


def test_two_executors_make_the_samples_of_local_mode(spark_cluster, logs, local_samples, tmp_path):
    # A process for each task, so that it shows whether tasks share their compiled kernels.
    command = build_samples(
        spark_cluster, logs, tmp_path / "samples",
        "spark.python.worker.reuse=false", "spark.executorEnv.NUMBA_DEBUG_CACHE=1",
    )  # fmt: skip
    run(command, tmp_path / "submit.log", spark_cluster.environment(), SECONDS)
    assert_same_samples(str(tmp_path / "samples"), str(local_samples))
    assert names(str(tmp_path)) == ["samples", "submit.log"]
    executors = spark_cluster.executor_logs()
    assert len(executors) == 2
    for log in executors:
        compiled = Counter(re.findall(r"data saved to '(.*)'", log))
        loaded = Counter(re.findall(r"data loaded from '(.*)'", log))
        assert max(compiled.values()) == 1
        assert compiled.keys() & loaded.keys()


def test_two_executors_make_the_id_table_of_local_mode(spark_cluster, known_ids, local, tmp_path):
    out = ["--out", str(tmp_path / "ids"), "--config", str(known_ids.config)]
    command = submit(spark_cluster, "jobs/build_ids.py", [*known_ids.paths(), *out])
    run(command, tmp_path / "submit.log", spark_cluster.environment(), SECONDS)
    assert_same_ids(str(tmp_path / "ids"), str(local.ids))


def test_two_executors_make_the_profile_of_local_mode(spark_cluster, known_ids, local, tmp_path):
    samples = ["--samples", str(local.test), "--against", str(local.train)]
    out = ["--out", str(tmp_path / "profile.json"), "--config", str(known_ids.config)]
    command = submit(spark_cluster, "jobs/profile_samples.py", [*samples, *out])
    run(command, tmp_path / "submit.log", spark_cluster.environment(), SECONDS)
    assert_same_values(str(tmp_path / "profile.json"), str(local.profile))


def test_a_killed_executor_changes_nothing(spark_cluster, logs, local_samples, tmp_path):
    out = tmp_path / "samples"
    many_files = Logs(logs.folder, tmp_path / "config.yaml")
    many_files.config.write_text(logs.config.read_text().replace("600000", "30000"))
    with daemon(
        build_samples(spark_cluster, many_files, out), tmp_path / "submit.log", spark_cluster.environment()
    ) as job:
        # The first files of about a hundred are being written.
        wait_until(lambda: any(tmp_path.glob(".samples.staging-*/attempts/*.parquet")), SECONDS, [job])
        executors = (process for one in spark_cluster.daemons for process in one.descendants(EXECUTOR))
        victim = next(one for one in executors if one.children())  # has Python workers, so it takes tasks
        victim.suspend()
        time.sleep(1)  # if it had none at that moment, it is given one now
        victim.kill()
        assert job.guard.wait(SECONDS) == 0
    output = (tmp_path / "submit.log").read_text()
    assert re.search(r"Lost executor \d+ on 127.0.0.1: Command exited with code 137", output)
    assert re.search(r"Lost task \d+.0 in stage .*ExecutorLostFailure", output)
    assert_same_samples(str(out), str(local_samples))
    assert names(str(tmp_path)) == ["config.yaml", "samples", "submit.log"]


def test_damaged_logs_end_the_command_with_their_name(spark_cluster, logs, tmp_path):
    damaged = tmp_path / "sample_skeleton_train.csv.gz"
    damaged.write_bytes(gzip.compress((logs.folder / "sample_skeleton_train.csv").read_bytes())[:-100])
    once = ("spark.task.maxFailures=1", "spark.cores.max=1")
    command = build_samples(spark_cluster, logs, tmp_path / "samples", *once)
    command[command.index("--skeleton") + 1] = str(damaged)
    output = run(command, tmp_path / "submit.log", spark_cluster.environment(), SECONDS, code=2)
    [error] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert f"{damaged}: expected a whole gzip file, found a damaged one" in error
    assert names(str(tmp_path)) == [damaged.name, "submit.log"]
