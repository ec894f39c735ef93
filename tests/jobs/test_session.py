"""What a command that starts Spark itself says on stderr: what Spark warns of, and not that it starts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.session import CLASS_ARCHIVE

PROJECT = Path(__file__).resolve().parents[2]

PROGRAM = """
from jobs.session import spark_session

spark = spark_session("speaks")
logger = spark.sparkContext._jvm.org.apache.log4j.LogManager.getLogger("org.apache.spark.Anything")
logger.info("of no interest")
logger.warn("of interest")
logger.warn("Unable to load native-hadoop library for your platform")
spark.stop()
"""


def test_only_warnings_that_mean_something_reach_the_terminal(tmp_path: Path) -> None:
    project = tmp_path / "a folder, with spaces"
    for name in ("jobs", "cli", "storage", "schemas", "configs"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=project, capture_output=True, text=True, check=True
    )
    lines = [
        line for line in run.stderr.splitlines() if "incubator" not in line
    ]  # Java's own, before any log
    assert [line.partition(" ")[2] for line in lines] == ["WARN Anything: of interest"]


MAPPED = """
from pathlib import Path

from pyspark import SparkContext

import jobs.session

jobs.session.CLASS_ARCHIVE = Path({archive!r})
spark = jobs.session.spark_session("maps")
maps = Path(f"/proc/{{SparkContext._gateway.proc.pid}}/maps").read_text()
print({archive!r} in maps, spark.range(3).count())
spark.stop()
"""


def mapped(archive: Path) -> subprocess.CompletedProcess[str]:
    """Whether Spark's JVM has mapped an archive of classes, and three rows counted."""
    command = [sys.executable, "-c", MAPPED.format(archive=str(archive))]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)


def test_the_classes_that_set_up_archived_are_mapped() -> None:
    if not CLASS_ARCHIVE.is_file():
        pytest.skip("set-up made no archive of classes with this Java")
    assert mapped(CLASS_ARCHIVE).stdout.split() == ["True", "3"]


def test_an_archive_that_does_not_fit_is_left_alone_without_a_word(tmp_path: Path) -> None:
    archive = tmp_path / "spark.jsa"
    archive.write_bytes(b"not what Java has written" * 1000)
    run = mapped(archive)
    assert run.stdout.split() == ["False", "3"]
    assert "cds" not in run.stderr and "archive" not in run.stderr
