"""Daily retraining: yesterday's raw logs to samples, a model trained on them, its AUCs on held-out logs.

One run per day, for the data interval that just ended. A day's logs lie in `raw/ds=YYYY-MM-DD/`: the
four files of Ali-CCP, or folders of part files named after them, of which the train half is trained on
and the test half, later in time, judged. Whoever delivers them writes an empty file `_SUCCESS` beside
them last: the day waits for it, so that half a day is never trained on.
Samples that break a gate of the configuration (section `profile`) stop the day before training.
Every task replaces its own output whole, so any of them can be run again: a day whose logs were mended
by clearing it. Training that is tried again goes on from the last checkpoint of the try before.

Where things are comes from the environment of the scheduler:
    ESMM_HOME     the project's folder                           (default: the folder above this one)
    ESMM_DATA     raw/, samples/ and runs/ by day, in a local or shared folder
                                                                 (default: ESMM_HOME/build/daily)
    ESMM_CONFIG   configuration of samples, gates and training   (default: ESMM_HOME/configs/demo.yaml)
    ESMM_WORKERS  Horovod workers, all on this machine           (default: 2)
where Spark runs from the Airflow connection `esmm_spark`, of type spark, and how long things may take
from these, in hours (0.5 is allowed), so that a day that hangs or never comes does not hold up the next:
    ESMM_WAIT_HOURS  for the day's logs; 0 looks once            (default: 12)
    ESMM_TASK_HOURS  for one try of a task, which is then killed (default: 6)
A whole day may take 24 hours, as the next one must run then.
"""

import os
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, BaseSensorOperator, CronDataIntervalTimetable

HOME = os.environ.get("ESMM_HOME", str(Path(__file__).resolve().parents[1]))
DATA = os.environ.get("ESMM_DATA", f"{HOME}/build/daily")
CONFIG = os.environ.get("ESMM_CONFIG", f"{HOME}/configs/demo.yaml")
WORKERS = os.environ.get("ESMM_WORKERS", "2")
LONGEST_WAIT = timedelta(hours=float(os.environ.get("ESMM_WAIT_HOURS", "12")))
LONGEST_TRY = timedelta(hours=float(os.environ.get("ESMM_TASK_HOURS", "6")))

PYTHON = f"{HOME}/.venv/bin/python"
DAY = "ds={{ data_interval_start | ds }}"
RAW, SAMPLES, RUN = f"{DATA}/raw/{DAY}", f"{DATA}/samples/{DAY}", f"{DATA}/runs/{DAY}"

# spark-submit takes its Python, and itself, from the environment of training, not from Airflow's.
ENVIRONMENT = {
    "PATH": f"{HOME}/.venv/bin:{os.environ.get('PATH', '')}",
    "PYTHONPATH": HOME,
    "PYSPARK_PYTHON": PYTHON,
}


class Delivered(BaseSensorOperator):
    """Waits until a day's logs are whole; its log says which file it waits for."""

    template_fields = ("mark",)

    def __init__(self, *, mark: str, **options: Any) -> None:
        super().__init__(**options)
        self.mark = mark

    def poke(self, context: Any) -> bool:
        """Whether the mark is there."""
        self.log.info("waiting for %s, written after the last of the day's logs", self.mark)
        return Path(self.mark).exists()


def spark_job(task_id: str, job: str, arguments: list[str], **options: int) -> SparkSubmitOperator:
    """One of the project's Spark jobs. options: of the operator."""
    return SparkSubmitOperator(
        task_id=task_id,
        name=f"esmm-{task_id}",
        conn_id="esmm_spark",
        application=f"{HOME}/jobs/{job}.py",
        application_args=arguments,
        env_vars=ENVIRONMENT,
        driver_memory="2g",  # as in configs/spark: once spark-submit runs, a job cannot ask for it
        **options,
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


def horovod_job(task_id: str, module: str, arguments: list[str], manner: str) -> BashOperator:
    """One of the project's distributed commands on all workers. manner: options for the shell to split."""
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
    # Quoted together with their templates, which are filled in within the quotes.
    command = f"{shlex.join([*start, *arguments])} {manner}"
    return BashOperator(task_id=task_id, bash_command=command, cwd=HOME, env=ENVIRONMENT, append_env=True)


with DAG(
    dag_id="esmm_daily",
    description="Yesterday's logs to a trained ESMM and its three AUCs",
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=1),
    default_args={
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": LONGEST_TRY,
    },
    doc_md=__doc__,
):
    wait_for_logs = Delivered(
        task_id="wait_for_logs",
        mark=f"{RAW}/_SUCCESS",
        mode="reschedule",
        poke_interval=timedelta(minutes=5),
        timeout=LONGEST_WAIT,
    )
    # Not tried again: a broken gate stays broken.
    profile = spark_job(
        "profile",
        "profile_samples",
        ["--samples", f"{SAMPLES}/split=test", "--against", f"{SAMPLES}/split=train"]
        + ["--config", CONFIG, "--out", f"{SAMPLES}/_profile.json"],
        retries=0,
    )
    train = horovod_job(
        "train",
        "esmm.train",
        ["--config", CONFIG, "--train", f"{SAMPLES}/split=train", "--valid", f"{SAMPLES}/split=test"]
        + ["--run", RUN],
        "{{ '--overwrite --resume' if task_instance.try_number > 1 else '--overwrite' }}",
    )
    predict = horovod_job(
        "predict",
        "esmm.predict",
        ["--run", RUN, "--samples", f"{SAMPLES}/split=test", "--out", f"{RUN}/predictions"],
        "--overwrite",
    )
    evaluate = spark_job(
        "evaluate", "evaluate", ["--predictions", f"{RUN}/predictions", "--out", f"{RUN}/metrics.json"]
    )
    (
        wait_for_logs
        >> [build_samples("train"), build_samples("test")]
        >> profile
        >> train
        >> predict
        >> evaluate
    )
