"""The Spark session of every job, whether started by `python -m jobs.x` or by `spark-submit jobs/x.py`."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from schemas.errors import InputError

PROJECT = Path(__file__).resolve().parents[1]

DEFAULTS = {
    "spark.log.level": "WARN",
    "spark.sql.session.timeZone": "UTC",
}


def spark_session(app_name: str, **conf: str) -> SparkSession:
    """The session of a job; the master comes from `spark-submit` or spark-defaults.conf, else local[*].

    conf: Spark options of the job (`**{"spark.driver.memory": "2g"}`); what the user passes to
    `spark-submit` or in PYSPARK_SUBMIT_ARGS wins over them. On a cluster the Python workers find
    `jobs` and `schemas` through `--py-files`; in local mode they find them beside this file.
    """
    defaults = SparkConf(loadDefaults=False).setAll(list({**DEFAULTS, **conf}.items()))
    # Where this process starts the JVM itself, only options given to it now (driver memory) still count.
    SparkContext._ensure_initialized(conf=defaults)
    merged = SparkConf()
    for key, value in defaults.getAll():
        merged.setIfMissing(key, value)
    if merged.get("spark.master", "local").startswith("local"):
        _set_local_defaults(merged)
    if not sys.stderr.isatty():
        merged.set("spark.ui.showConsoleProgress", "false")
    return SparkSession.builder.config(conf=merged).appName(app_name).getOrCreate()


def _set_local_defaults(conf: SparkConf) -> None:
    """Local mode: no port open to the network, a task per piece of work that is worth one, and this
    interpreter and this project for the Python workers."""
    conf.setIfMissing("spark.driver.bindAddress", "127.0.0.1")
    conf.setIfMissing("spark.driver.host", "127.0.0.1")
    conf.setIfMissing("spark.ui.enabled", "false")
    # Spark's 200 shuffle partitions make every shuffle of small data seconds long.
    conf.setIfMissing("spark.sql.shuffle.partitions", str(4 * (os.cpu_count() or 1)))
    conf.setIfMissing("spark.executorEnv.PYTHONPATH", str(PROJECT))
    # Spark would take the first python3 on the PATH, which may lack pyarrow.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def spark_path(path: str) -> str:
    """A path as Spark must write it: without a scheme it is local, whatever the cluster's default is."""
    return path if "://" in path else f"file://{os.path.abspath(path)}"


@contextmanager
def task_errors_as_input_errors() -> Iterator[None]:
    """An `InputError` raised in a task reaches the driver inside Spark's own exception: unwrap it."""
    try:
        yield
    except PySparkException as error:
        found = re.search(r"InputError: (.+)", str(error))
        if found is None:
            raise
        raise InputError(found.group(1)) from None
