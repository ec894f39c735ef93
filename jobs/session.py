"""The Spark session of every job, whether started by `python -m jobs.x` or by `spark-submit jobs/x.py`."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cli.errors import InputError

PROJECT = Path(__file__).resolve().parents[1]

LOG_SETTINGS = PROJECT / "configs/spark/log4j2.properties"
JAVA_OPTIONS = "spark.driver.defaultJavaOptions"

# Of classes that Spark loads, by scripts.class_archive: a JVM starts in two thirds of the time with it.
CLASS_ARCHIVE = Path(sys.prefix) / "spark.jsa"

DEFAULTS = {"spark.sql.session.timeZone": "UTC"}
# A disk or a quota is full, a folder may not be written.
NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def spark_session(app_name: str, **conf: str) -> SparkSession:
    """The session of a job; the master comes from `spark-submit` or spark-defaults.conf, else local[*].

    conf: Spark options of the job (`**{"spark.driver.memory": "2g"}`); what the user passes to
    `spark-submit` or in PYSPARK_SUBMIT_ARGS wins over them. On a cluster the Python workers find
    `jobs` and `schemas` through `--py-files`; in local mode they find them beside this file.
    """
    defaults = {**DEFAULTS, **conf}
    # Where this process starts the JVM itself, only options given to it now (driver memory) still count.
    at_start = SparkConf(loadDefaults=False).setAll([*defaults.items(), *_java_options().items()])
    SparkContext._ensure_initialized(conf=at_start)
    merged = SparkConf()
    for key, value in defaults.items():
        merged.setIfMissing(key, value)
    if LOG_SETTINGS.as_uri() not in merged.get(JAVA_OPTIONS, ""):  # spark-submit has started the JVM
        merged.setIfMissing("spark.log.level", "WARN")
    if merged.get("spark.master", "local").startswith("local"):
        _set_local_defaults(merged)
    merged.set("spark.ui.showConsoleProgress", "false")  # jobs.progress says more
    return SparkSession.builder.config(conf=merged).appName(app_name).getOrCreate()


def _java_options() -> dict[str, str]:
    """What keeps Spark's log to warnings that mean something, and a JVM short of time for itself.

    It only moves bytes between kernels and numpy: good machine code, or a collector of short pauses, takes
    more from them than it gives. Options of the user come after these, and win.
    """
    options = ["-XX:TieredStopAtLevel=1 -XX:+UseParallelGC"]
    if LOG_SETTINGS.is_file():
        options.append(f"-Dlog4j2.configurationFile={LOG_SETTINGS.as_uri()}")  # its path may have spaces
    if CLASS_ARCHIVE.is_file() and " " not in str(CLASS_ARCHIVE):
        # Java goes without an archive that does not fit it, and need not say so.
        options.append(f"-XX:SharedArchiveFile={CLASS_ARCHIVE} -Xlog:cds=off")
    return {JAVA_OPTIONS: " ".join(options)}


def _set_local_defaults(conf: SparkConf) -> None:
    """Local mode: no port open to the network, a task per piece of work that is worth one, and this
    interpreter and this project for the Python workers."""
    conf.setIfMissing("spark.driver.bindAddress", "127.0.0.1")
    conf.setIfMissing("spark.driver.host", "127.0.0.1")
    conf.setIfMissing("spark.ui.enabled", "false")
    # The shuffle stays on this machine, where compressing it costs more time than writing it.
    conf.setIfMissing("spark.shuffle.compress", "false")
    # Spark's 200 shuffle partitions make every shuffle of small data seconds long.
    conf.setIfMissing("spark.sql.shuffle.partitions", str(4 * (os.cpu_count() or 1)))
    conf.setIfMissing("spark.executorEnv.PYTHONPATH", str(PROJECT))
    # Spark would take the first python3 on the PATH, which may lack pyarrow.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def spark_path(path: str) -> str:
    """A path as Spark must write it: without a scheme it is local, whatever the cluster's default is."""
    return path if "://" in path else f"file://{os.path.abspath(path)}"


@contextmanager
def task_errors_as_input_errors(writing: str | None = None) -> Iterator[None]:
    """What a user can mend reaches the driver inside Spark's own exception: an `InputError` of a task, a
    folder that cannot be written, a full disk, a file system that Spark has no jars for. writing: the folder
    that the tasks write."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        message = _what_to_mend(str(error), writing)
        if message is None:
            raise
        raise InputError(message) from None


def _what_to_mend(report: str, writing: str | None) -> str | None:
    if found := re.search(r"InputError: (.+)", report):
        return found.group(1)
    found = re.search(r"^\w*Error: \[Errno (\d+)\] (.+)", report, re.MULTILINE)
    if found and writing and int(found.group(1)) in NOT_WRITABLE:
        return (
            f"{writing}: nothing was published, a task could not write there: {found.group(2)}. "
            "Check the space left and the permissions."
        )
    if found := re.search(r'No FileSystem for scheme "(\w+)"', report):
        return (
            f"{found.group(1)}://: this job reads through Spark's own readers, for which the file system has "
            "to be set up: expected its jars, found none. docs/object_stores.md says how."
        )
    if found := re.search(r"java\.io\.IOException: (No space left on device)", report):
        return (
            f"Spark's scratch folder: {found.group(1)}. Set spark.local.dir (on YARN the nodes' "
            "yarn.nodemanager.local-dirs) to a larger disk."
        )
    return None
