"""Daily retraining: yesterday's raw logs to samples, a model trained on them, its AUCs on held-out logs.

One run per day, for the data interval that just ended. A day's logs lie in `raw/ds=YYYY-MM-DD/`: the
four files of Ali-CCP, or folders of part files named after them, of which the train half is trained on
and the test half, later in time, judged.
Every task replaces its own output whole, so any of them can be run again. Training that is tried again
goes on from the last checkpoint of the try before.

Where things are comes from the environment of the scheduler:
    ESMM_HOME     the project's folder                           (default: the folder above this one)
    ESMM_DATA     raw/, samples/ and runs/ by day                (default: ESMM_HOME/build/daily)
    ESMM_CONFIG   configuration of samples and training          (default: ESMM_HOME/configs/demo.yaml)
    ESMM_WORKERS  Horovod workers, all on this machine           (default: 2)
and where Spark runs from the Airflow connection `esmm_spark`, of type spark.
"""

import os
import shlex
from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, CronDataIntervalTimetable

HOME = os.environ.get("ESMM_HOME", str(Path(__file__).resolve().parents[1]))
DATA = os.environ.get("ESMM_DATA", f"{HOME}/build/daily")
CONFIG = os.environ.get("ESMM_CONFIG", f"{HOME}/configs/demo.yaml")
WORKERS = os.environ.get("ESMM_WORKERS", "2")

PYTHON = f"{HOME}/.venv/bin/python"
DAY = "ds={{ data_interval_start | ds }}"
RAW, SAMPLES, RUN = f"{DATA}/raw/{DAY}", f"{DATA}/samples/{DAY}", f"{DATA}/runs/{DAY}"

# spark-submit takes its Python, and itself, from the environment of training, not from Airflow's.
ENVIRONMENT = {
    "PATH": f"{HOME}/.venv/bin:{os.environ.get('PATH', '')}",
    "PYTHONPATH": HOME,
    "PYSPARK_PYTHON": PYTHON,
}


def spark_job(task_id: str, job: str, arguments: list[str]) -> SparkSubmitOperator:
    """One of the project's Spark jobs."""
    return SparkSubmitOperator(
        task_id=task_id,
        name=f"esmm-{task_id}",
        conn_id="esmm_spark",
        application=f"{HOME}/jobs/{job}.py",
        application_args=arguments,
        env_vars=ENVIRONMENT,
    )


def build_samples(split: str) -> SparkSubmitOperator:
    """Samples of one half of the day."""
    raw = [
        "--skeleton",
        f"{RAW}/sample_skeleton_{split}*",
        "--common",
        f"{RAW}/common_features_{split}*",
    ]
    out = ["--out", f"{SAMPLES}/split={split}", "--config", CONFIG, "--overwrite"]
    return spark_job(f"build_samples_{split}", "build_samples", raw + out)


def horovod_job(task_id: str, module: str, arguments: list[str]) -> BashOperator:
    """One of the project's distributed commands on all workers."""
    start = [
        f"{HOME}/.venv/bin/horovodrun",
        "-np",
        WORKERS,
        "-H",
        f"localhost:{WORKERS}",
        PYTHON,
        "-m",
        module,
    ]
    # shlex would quote the braces of the templates, which are filled in only later.
    command = " ".join(part if "{{" in part else shlex.quote(part) for part in [*start, *arguments])
    return BashOperator(task_id=task_id, bash_command=command, cwd=HOME, env=ENVIRONMENT, append_env=True)


with DAG(
    dag_id="esmm_daily",
    description="Yesterday's logs to a trained ESMM and its three AUCs",
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
):
    train = horovod_job(
        "train",
        "esmm.train",
        ["--config", CONFIG, "--train", f"{SAMPLES}/split=train", "--valid", f"{SAMPLES}/split=test"]
        + ["--run", RUN, "{{ '--overwrite --resume' if task_instance.try_number > 1 else '--overwrite' }}"],
    )
    predict = horovod_job(
        "predict",
        "esmm.predict",
        ["--run", RUN, "--samples", f"{SAMPLES}/split=test", "--out", f"{RUN}/predictions", "--overwrite"],
    )
    evaluate = spark_job(
        "evaluate", "evaluate", ["--predictions", f"{RUN}/predictions", "--out", f"{RUN}/metrics.json"]
    )
    [build_samples("train"), build_samples("test")] >> train >> predict >> evaluate
