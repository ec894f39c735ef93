"""The stages of daily retraining as Airflow's tasks: each is one of the project's commands."""

import logging
import os
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import Asset, BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowFailException
from esmm_settings import HOME, Settings, hours, load

SETTINGS: Settings = load()
PYTHON = f"{HOME}/.venv/bin/python"
CONFIG = SETTINGS.absolute(SETTINGS.config)
SCHEMA = SETTINGS.absolute(SETTINGS.schema_file) if SETTINGS.schema_file else None
DATA = SETTINGS.absolute(SETTINGS.data)
REGISTRY = SETTINGS.absolute(SETTINGS.registry)
SAMPLES_ROOT = SETTINGS.absolute(SETTINGS.samples)
RAW_ROOT = SETTINGS.absolute(SETTINGS.raw)
PROFILES = f"{DATA}/days/profiles"

SAMPLES = Asset("esmm://samples")
CHAMPION = Asset("esmm://champion")

# What a task of the project finds in its environment: its own Python, not Airflow's.
ENVIRONMENT = {
    "PATH": f"{HOME}/.venv/bin:{os.environ.get('PATH', '')}",
    "PYTHONPATH": HOME,
    "PYSPARK_PYTHON": PYTHON,
    "PYSPARK_DRIVER_PYTHON": PYTHON,
}
# Those that jobs/session.py starts a JVM with: spark-submit has started it before they could. A Java without
# the archive does without.
JAVA_OPTIONS = (
    "-XX:TieredStopAtLevel=1 -XX:+UseParallelGC -Xlog:cds=off "
    f"-XX:SharedArchiveFile={HOME}/.venv/spark.jsa "
    f"-Dlog4j2.configurationFile={Path(HOME, 'configs/spark/log4j2.properties').as_uri()}"
)
EXIT_NOT_YET = 3  # of jobs.delivered
EXIT_SKIP = 99  # Airflow's own

log = logging.getLogger("airflow.task")


def quoted(words: list[str]) -> str:
    """A command for the shell. Templates are filled in within the quotes."""
    return shlex.join(words)


def told(task_id: str, key: str) -> str:
    """A template: what a task has answered. In double quotes, as commands stand in single ones."""
    return f'{{{{ ti.xcom_pull(task_ids="{task_id}")["{key}"] }}}}'


def registry_options() -> list[str]:
    """Which registry, for commands that change it."""
    lock = ["--lock", SETTINGS.absolute(SETTINGS.lock)] if SETTINGS.lock else []
    return ["--registry", REGISTRY, *lock]


def module(name: str, *words: str) -> list[str]:
    """One of the project's commands, on this machine."""
    return [PYTHON, "-m", name, *words]


def shell(
    task_id: str, command: str, operator: type[BashOperator] = BashOperator, **options: Any
) -> BashOperator:
    """A task that runs a command line in the project's folder and environment."""
    env = ENVIRONMENT | options.pop("env", {})
    return operator(task_id=task_id, bash_command=command, cwd=HOME, env=env, append_env=True, **options)


def workers(name: str) -> str:
    """What starts one of the project's distributed commands on all workers; its options follow."""
    training, number = SETTINGS.training, "{{ params.workers }}"
    if name == "esmm.train" and training.launcher == "spark":
        master = (
            "{{ conn.esmm_spark.host }}{% if conn.esmm_spark.port %}:{{ conn.esmm_spark.port }}{% endif %}"
        )
        start = ["spark-submit", "--master", master, "--conf", f"spark.pyspark.python={PYTHON}"]
        return quoted(
            [*start, *training.launcher_options, f"{HOME}/esmm/train.py", "--launcher", "spark"]
            + ["--num-workers", number]
        )
    hosts = training.hosts or f"localhost:{number}"
    start = [f"{HOME}/.venv/bin/horovodrun", "-np", number, "-H", hosts]
    more = training.launcher_options if training.launcher == "horovodrun" else []
    return quoted([*start, *more, *module(name)])


def spark_job(task_id: str, job: str, arguments: list[str], **options: Any) -> SparkSubmitOperator:
    """One of the project's Spark jobs. In cluster mode the driver is sent the files.

    With an archive the executors have an environment of their own; a driver on this machine has this one.
    """
    spark = SETTINGS.spark
    sent = spark.deploy_mode == "cluster"
    files = {"--config": CONFIG}
    if job == "build_samples" and SCHEMA:
        files["--schema"] = SCHEMA
    named = [
        word for option, path in files.items() for word in (option, os.path.basename(path) if sent else path)
    ]
    driver = {} if sent else {"spark.pyspark.driver.python": PYTHON}
    if spark.properties_file is None:
        driver["spark.driver.defaultJavaOptions"] = JAVA_OPTIONS
    return SparkSubmitOperator(
        task_id=task_id,
        name=f"esmm-{task_id}",
        conn_id="esmm_spark",
        application=f"{HOME}/jobs/{job}.py",
        application_args=[*arguments, *named],
        env_vars=None if spark.archives else ENVIRONMENT,
        driver_memory=spark.driver_memory,  # once spark-submit runs, a job cannot ask for it
        properties_file=_path(spark.properties_file),
        py_files=_path(spark.py_files),
        archives=spark.archives,
        files=",".join(files.values()) if sent else None,
        deploy_mode=spark.deploy_mode,
        conf=driver | spark.conf,
        # Another try begins anew, since a stage that was cleared has to run and not to find its former self.
        durable=False,
        **options,
    )


def _path(text: str | None) -> str | None:
    return SETTINGS.absolute(text) if text else None


def tell_failure(context: Any) -> None:
    """Say which stage of which day has failed, where its log is, and where to read on."""
    instance = context["task_instance"]
    log.error(
        "STAGE FAILED: %s of %s, run %s, try %s: %s. Its log: %s. What to do: docs/operations.md",
        instance.task_id,
        instance.dag_id,
        instance.run_id,
        instance.try_number,
        context.get("exception"),
        instance.log_url,
    )


class DayDelivered(BaseOperator):
    """Waits until a day's logs are whole, and holds no worker while it does.

    raw: the day's folder; `jobs.delivered` looks into it, on any file system, and its words are in the log.
    What waiting does not mend fails at once, and so does a day that has not come after `wait`.
    """

    template_fields = ("raw",)

    def __init__(self, *, raw: str, wait: timedelta, poll: timedelta, **options: Any) -> None:
        super().__init__(**options)
        self.raw = raw
        self.wait = wait
        self.poll = poll

    def execute(self, context: Any, event: Any = None, since: str | None = None) -> None:
        """Look once; then again after `poll`, as long as it is not whole. since: the first look, ISO."""
        began = datetime.fromisoformat(since) if since else datetime.now(UTC)
        looked = subprocess.run(
            module("jobs.delivered", "--raw", self.raw, *(["--tables"] if SETTINGS.tables else [])),
            cwd=HOME,
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.log.info("%s", (looked.stdout + looked.stderr).strip())
        if looked.returncode == 0:
            return
        if looked.returncode != EXIT_NOT_YET:
            raise AirflowFailException(looked.stderr.strip())
        if datetime.now(UTC) - began >= self.wait:
            raise AirflowFailException(
                f"{looked.stdout.strip()} after {self.wait}. Deliver it, then clear this run."
            )
        self.defer(
            trigger=TimeDeltaTrigger(self.poll),
            method_name="execute",
            kwargs={"since": began.isoformat()},
        )


class ReportLink(BaseOperatorLink):
    """From the page of a task to the report that it has made; airflow_dags/plugins serves it."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The run's folder ends in ds=D/KEY."""
        run = operator.run.rstrip("/")
        return f"/esmm/{'/'.join(run.split('/')[-2:])}/report.html"


class Report(BashOperator):
    """Makes a page of a run; `run` is its folder."""

    template_fields = (*BashOperator.template_fields, "run")
    operator_extra_links = (ReportLink(),)

    def __init__(self, *, run: str, **options: Any) -> None:
        super().__init__(**options)
        self.run = run


class Promotion(BashOperator):
    """Decides about a candidate. Promoted: the asset's event says on which day; kept: the task is skipped."""

    template_fields = (*BashOperator.template_fields, "day")

    def __init__(self, *, day: str, **options: Any) -> None:
        super().__init__(outlets=[CHAMPION], skip_on_exit_code=EXIT_SKIP, **options)
        self.day = day

    def execute(self, context: Any) -> Any:
        """`AirflowSkipException` where it is kept; no event then."""
        found = super().execute(context)
        context["outlet_events"][CHAMPION].extra = {"day": self.day}
        return found


DEFAULTS: dict[str, Any] = {
    "retries": SETTINGS.retries,
    "retry_delay": timedelta(minutes=SETTINGS.retry_minutes),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(hours=1),
    "execution_timeout": hours(SETTINGS.hours.task),
    "on_failure_callback": tell_failure,
}
