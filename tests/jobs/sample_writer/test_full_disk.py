"""The disk is full in the middle of the job: one clear message, nothing published, nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.raw_lines import random_logs, write_logs

pytestmark = pytest.mark.slow
# In a mount namespace of its own the small disk is gone with the command. No root: as root of a namespace.
NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
MOUNT_AND_RUN = (
    'mount -t tmpfs -o size="$1" tmpfs "$2" || exit 99; shift 2; "$@"; code=$?; ls -A "$DISK"; exit $code'
)


def run_with_small_disk(disk: Path, size: str, command: list[str], **environment: str):
    """Run a command while `disk` is a file system of `size`; the names left there are its last output."""
    disk.mkdir()
    return subprocess.run(
        [*NAMESPACE, "sh", "-c", MOUNT_AND_RUN, "sh", size, str(disk), *command],
        env={**os.environ, "DISK": str(disk), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def can_mount(tmp_path_factory):
    probe = run_with_small_disk(tmp_path_factory.mktemp("probe") / "disk", "64k", ["true"])
    if probe.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {probe.stderr.strip()}")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """build_samples of some random logs, but for its output."""
    logs = write_logs(tmp_path_factory.mktemp("logs"), random_logs(seed=3, num_contexts=400))
    return [sys.executable, "-m", "jobs.build_samples", "--skeleton", logs[0], "--common", logs[1], "--out"]


def test_a_full_output_disk_stops_the_job_and_leaves_nothing_there(build, tmp_path):
    disk = tmp_path / "disk"
    done = run_with_small_disk(disk, "48k", [*build, f"{disk}/samples"])
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"error: {disk}/samples: nothing was published")
    assert "No space left on device" in message
    assert (done.returncode, done.stdout) == (2, "")


def test_a_full_scratch_disk_stops_the_job_and_publishes_nothing(build, tmp_path):
    disk = tmp_path / "disk"
    done = run_with_small_disk(disk, "48k", [*build, f"{tmp_path}/samples"], SPARK_LOCAL_DIRS=str(disk))
    assert done.stderr.splitlines()[-1].startswith("error: Spark's scratch folder: No space left on device.")
    assert done.returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk"]
