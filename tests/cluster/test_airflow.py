"""Days of the DAG on a real YARN with HDFS: samples, profile, training and evaluation run there.

Its own make target, test-airflow-yarn, since it needs both environments.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.airflow_api import Api
from storage import publishing
from tests.cluster.test_yarn import SPARK_HOME, put
from tests.fixtures.cluster.hadoop import Hadoop
from tests.fixtures.cluster.processes import LOOPBACK, PROJECT, Daemon, daemon, free_ports, wait_until

AIRFLOW_PYTHON = PROJECT / ".venv-airflow/bin/python"
DAYS = ("2026-11-01", "2026-11-02")
ENDED = ("success", "failed")
CONFIG = {
    "samples": {"rows_per_row_group": 16},
    "profile": {"gates": {"ctr": [0.02, 0.08]}},
    "evaluate": {"slices": {}},
    "train": {"batch_size": 256, "epochs": 1},
    "promotion": {"min_conversions": 1},
}
pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not AIRFLOW_PYTHON.exists(), reason="needs Airflow's environment: make setup-airflow"),
]


@dataclass(frozen=True)
class Place:
    """data: local, shared by all containers of this one machine. url: on HDFS, with raw/ and samples/."""

    data: Path
    url: str
    settings: Path


@pytest.fixture(scope="module")
def place(hadoop_cluster: Hadoop, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Logs of two days on HDFS, and settings under which everything runs on YARN."""
    data = tmp_path_factory.mktemp("daily")
    url = f"{hadoop_cluster.url}/daily"
    for number, day in enumerate(DAYS, 1):
        raw = data / f"drawn/ds={day}"
        words = ["--day", str(number), "--contexts", "300", "--list-scale", "0.1", "--out", str(raw)]
        subprocess.run([sys.executable, "-m", "jobs.make_demo_logs", *words], cwd=PROJECT, check=True)
        for name in ("sample_skeleton.csv", "common_features.csv", "_SUCCESS"):
            put(raw / name, f"{url}/raw/ds={day}/{name}")
    put(PROJECT / "dist/env.tar.gz", f"{hadoop_cluster.url}/env.tar.gz")
    (data / "config.yaml").write_text(json.dumps(CONFIG))
    (data / "settings.yaml").write_text(json.dumps(settings_of(data, url, hadoop_cluster)))
    return Place(data, url, data / "settings.yaml")


def settings_of(data: Path, url: str, hadoop: Hadoop) -> dict[str, Any]:
    conf = {
        "spark.yarn.jars": f"local:{SPARK_HOME}/jars/*",
        "spark.executor.instances": "2",
        "spark.executor.cores": "1",
        "spark.executor.memory": "512m",
        "spark.executor.memoryOverhead": "1g",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.yarn.appMasterEnv.SPARK_LOCAL_IP": LOOPBACK,
        "spark.executorEnv.SPARK_LOCAL_IP": LOOPBACK,
    }
    spark = {
        "properties_file": "configs/spark/yarn.conf",
        "py_files": "dist/jobs.zip",
        "archives": f"{hadoop.url}/env.tar.gz#.venv",
        "driver_memory": "700m",
        "conf": conf,
    }
    return {
        "data": str(data),
        "raw": f"{url}/raw",
        "samples": f"{url}/samples",
        "config": str(data / "config.yaml"),
        "end": DAYS[-1],
        "retries": 0,
        "hours": {"wait": 1, "poll": 0.001},
        "spark": spark,
        "training": {
            "launcher": "spark",
            "launcher_options": [part for pair in conf.items() for part in ("--conf", "=".join(pair))],
        },
    }


@contextmanager
def local_airflow(place: Place, hadoop: Hadoop) -> Iterator[tuple[Api, Daemon]]:
    """Airflow's processes, which see the cluster as any other program of this machine does."""
    (port,) = free_ports(1)
    command = [str(AIRFLOW_PYTHON), "-m", "scripts.local_airflow", "--settings", str(place.settings)]
    command += ["--home", str(place.data / "airflow"), "--port", str(port)]
    connection = {"AIRFLOW_CONN_ESMM_SPARK": json.dumps({"conn_type": "spark", "host": "yarn"})}
    log = place.data / "airflow.log"
    with daemon(command, log, os.environ | hadoop.environment() | connection) as process:
        wait_until(lambda: "Ctrl-C ends it" in log.read_text(), 240, [process])
        password = json.loads((place.data / "airflow/passwords.json").read_text())["admin"]
        api = Api.log_in(f"http://localhost:{port}", "admin", password)
        wait_until(lambda: "esmm_daily" in api.dag_ids(), 120, [process])
        api.unpause("esmm_daily")
        yield api, process


def applications(hadoop: Hadoop) -> set[str]:
    """All that YARN has run."""
    return {path.name for path in hadoop.logs.glob("userlogs/application_*")}


def test_a_day_runs_on_yarn(hadoop_cluster: Hadoop, place: Place) -> None:
    before = applications(hadoop_cluster)
    with local_airflow(place, hadoop_cluster) as (api, process):
        api.backfill("esmm_daily", *DAYS)
        wait_until(
            lambda: (
                [one["state"] for one in api.runs("esmm_daily") if one["state"] in ENDED] != []
                and all(one["state"] in ENDED for one in api.runs("esmm_daily"))
            ),
            1300,
            [process],
        )
        states = [api.tasks("esmm_daily", one["dag_run_id"]) for one in api.runs("esmm_daily")]
    assert [one["plan"] for one in states] == ["success", "success"], states
    for task in ("build_samples", "profile", "train", "predict", "evaluate", "register"):
        assert states[-1][task] == "success", states
    assert publishing.is_complete(f"{place.url}/samples/ds={DAYS[-1]}")
    (metrics,) = place.data.glob(f"runs/ds={DAYS[-1]}/*/metrics.json")
    assert json.loads(metrics.read_text())["ctr"]["rows"] > 1000
    # Samples and profile of both days, training and evaluation of the second.
    assert len(applications(hadoop_cluster) - before) == 6
