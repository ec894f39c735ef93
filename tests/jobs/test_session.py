"""What a command that starts Spark itself says on stderr: what Spark warns of, and not that it starts."""

import shutil
import subprocess
import sys
from pathlib import Path

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
