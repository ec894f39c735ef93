"""Nothing that the cluster tests start outlives them, however they end; the jars are those of the lock."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.fixtures.cluster.jars import VARIABLE, find_jars, locked_jars
from tests.fixtures.cluster.processes import PROJECT, daemon, python_environment, run

# Like YARN's NodeManager: a child in a session of its own, which the end of its parent does not end.
FAMILY = "import subprocess, time; subprocess.Popen(['sleep', '{0}'], start_new_session=True); {1}"
HOLDER = """
import os, signal, sys
from pathlib import Path
from tests.fixtures.cluster.processes import daemon, python_environment
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
with daemon([sys.executable, "-c", {family!r}], Path({log!r}), python_environment()):
    print("up", flush=True)
    signal.pause()
"""


def sleepers(seconds: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", seconds]]


def wait_for(number: int, seconds: str) -> None:
    end = time.monotonic() + 20
    while len(sleepers(seconds)) != number:
        assert time.monotonic() < end, f"{len(sleepers(seconds))} processes, expected {number}"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_descendants_end_with_the_process_that_asked_for_them(tmp_path: Path, how: signal.Signals):
    seconds = f"7{how:03d}.{tmp_path.stat().st_ino}"
    script = HOLDER.format(family=FAMILY.format(seconds, "time.sleep(600)"), log=str(tmp_path / "family.log"))
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as holder:
        try:
            wait_for(1, seconds)
            holder.send_signal(how)
            wait_for(0, seconds)
        finally:
            holder.kill()


def test_descendants_end_with_the_command_and_with_the_context(tmp_path: Path):
    seconds = f"6000.{tmp_path.stat().st_ino}"
    ending = [sys.executable, "-c", FAMILY.format(seconds, "raise SystemExit(3)")]
    run(ending, tmp_path / "ending.log", python_environment(), 30, code=3)
    wait_for(0, seconds)
    staying = [sys.executable, "-c", FAMILY.format(seconds, "time.sleep(600)")]
    with daemon(staying, tmp_path / "staying.log", python_environment()):
        wait_for(1, seconds)
    assert not sleepers(seconds)


def test_the_command_ends_even_where_the_nursery_is_killed(tmp_path: Path):
    seconds = f"5000.{tmp_path.stat().st_ino}"
    with daemon(["sleep", seconds], tmp_path / "sleep.log", python_environment()) as process:
        wait_for(1, seconds)
        process.guard.kill()
        wait_for(0, seconds)


def test_jars_of_another_content_or_place_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(AssertionError, match="file not found. Expected org.apache.hadoop"):
        find_jars()
    for jar in locked_jars():
        (tmp_path / jar.name).write_bytes(b"something else")
    with pytest.raises(AssertionError, match="expected SHA-256 .* as in cluster-jars.lock, found"):
        find_jars()


def test_without_jars_and_without_maven_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match=f"Install Maven .* or set {VARIABLE}"):
        find_jars()


def test_the_minicluster_is_of_spark_s_hadoop():
    from tests.fixtures.cluster.hadoop import SPARK_JARS

    [client] = SPARK_JARS.glob("hadoop-client-api-*.jar")
    version = client.stem.removeprefix("hadoop-client-api-")
    assert f"hadoop-client-minicluster-{version}.jar" in [jar.name for jar in locked_jars()]
