"""Archive the classes that Spark loads: a job that finds the archive starts in two thirds of the time.

python -m scripts.class_archive        (make setup does it once)

A small job runs in a JVM that writes down at its end what it has loaded (Java's class data sharing). Later
JVMs map that file; one that it does not fit, such as another Java, goes without it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark import SparkContext

from cli.arguments import CommandParser
from jobs import build_samples, make_demo_logs
from jobs.session import CLASS_ARCHIVE


def build_few_samples(folder: Path) -> None:
    """The job whose classes are archived: it reads, shuffles and writes as the others do."""
    raw = str(folder / "raw")
    _call(make_demo_logs.main, "--out", raw, "--contexts", "60", "--list-scale", "0.2")
    logs = ("--skeleton", f"{raw}/sample_skeleton_train.csv", "--common", f"{raw}/common_features_train.csv")
    _call(build_samples.main, *logs, "--out", str(folder / "samples"), "--config", "configs/demo.yaml")


def _call(command: Callable[[], None], *words: str) -> None:
    sys.argv[1:] = words
    command()


def main() -> None:
    """The command; see the top of this file."""
    CommandParser("scripts.class_archive", __doc__).parse_args()
    CLASS_ARCHIVE.unlink(missing_ok=True)
    option = f"-XX:ArchiveClassesAtExit={CLASS_ARCHIVE}"
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-java-options {option} pyspark-shell"
    with TemporaryDirectory() as folder:
        build_few_samples(Path(folder))
    jvm = SparkContext._gateway.proc  # type: ignore[union-attr]
    jvm.stdin.close()  # then it ends, and writes
    jvm.wait()
    print(f"{CLASS_ARCHIVE}: {CLASS_ARCHIVE.stat().st_size / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
