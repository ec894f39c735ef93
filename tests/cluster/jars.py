"""The jars of Hadoop's servers: named in requirements/cluster-jars.lock, checked before they are used.

They come from the folder in ESMM_CLUSTER_JARS; else from a cache folder, which Maven fills once.
"""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import PROJECT

LOCK = PROJECT / "requirements/cluster-jars.lock"
VARIABLE = "ESMM_CLUSTER_JARS"


@dataclass(frozen=True)
class Jar:
    """One line of the lock. coordinate: group:artifact:version."""

    coordinate: str
    sha256: str

    @property
    def name(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def check(self, folder: Path) -> Path:
        """The jar in a folder; an `AssertionError` where it is missing or another one."""
        path = folder / self.name
        assert path.is_file(), f"{path}: file not found. Expected {self.coordinate} there."
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found == self.sha256, (
            f"{path}: expected SHA-256 {self.sha256} as in {LOCK.name}, found {found}. Remove the file."
        )
        return path


def locked_jars() -> list[Jar]:
    """The lines of the lock."""
    lines = [line.split("#")[0].split() for line in LOCK.read_text().splitlines()]
    return [Jar(line[0], line[1].removeprefix("sha256:")) for line in lines if line]


def find_jars() -> list[Path]:
    """All jars of the lock, checked; fetched where they are not there yet."""
    given = os.environ.get(VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esmm/cluster-jars"
    folder = Path(given) if given else cache
    jars = locked_jars()
    if not given:
        fetch([jar for jar in jars if not (folder / jar.name).exists()], folder)
    return [jar.check(folder) for jar in jars]


def fetch(jars: list[Jar], folder: Path) -> None:
    """Download jars by Maven, one command for each, without what they depend on."""
    if not jars:
        return
    maven = shutil.which("mvn")
    assert maven, (
        f"the jars of {LOCK.name} are in no folder known here, and there is no mvn to fetch them. "
        f"Install Maven (apt-get install maven), or set {VARIABLE} to a folder that holds them."
    )
    folder.mkdir(parents=True, exist_ok=True)
    for jar in jars:
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
        options = [f"-Dartifact={jar.coordinate}", f"-DoutputDirectory={folder}"]
        command = [maven, "-q", "-B", goal, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, (
            f"{jar.coordinate}: Maven could not fetch it. Set {VARIABLE} to a folder that holds {jar.name}.\n"
            f"{done.stdout[-2000:]}"
        )
