"""Processes of the tests: none outlives its test, none listens where the network could reach it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[2]
NURSERY = Path(__file__).with_name("nursery.py")
LOOPBACK = "127.0.0.1"
Environment = dict[str, str]


@dataclass(frozen=True)
class Daemon:
    """A running command. guard: the process that ends it and all of its descendants; log: its output."""

    guard: "subprocess.Popen[bytes]"
    log: Path

    def descendants(self, name: str = "") -> list[psutil.Process]:
        """Its living processes, the nursery itself left out. name: what their command line must contain."""
        found = []
        for process in psutil.Process(self.guard.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # also what a zombie raises
                if any(name in part for part in process.cmdline()):
                    found.append(process)
        return found

    def running(self, module: str) -> list[psutil.Process]:
        """Those of them that are `python -m MODULE`, not the launchers and shells that name it too."""
        return [process for process in self.descendants(module) if process.cmdline()[1:3] == ["-m", module]]

    def require_running(self) -> None:
        if self.guard.poll() is not None:
            raise AssertionError(f"{self.log} ended:\n{self.log.read_text(errors='replace')[-4000:]}")


@contextmanager
def daemon(command: list[str], log: Path, environment: Environment) -> Iterator[Daemon]:
    """A command that runs as long as the context, its output in `log`."""
    with log.open("wb") as stream:
        guard = subprocess.Popen(
            [sys.executable, str(NURSERY), *command],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            env=environment,
            cwd=PROJECT,
        )
    try:
        yield Daemon(guard, log)
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(30)


def run(command: list[str], log: Path, environment: Environment, timeout: float, code: int | None = 0) -> str:
    """Run a command to its end; its output. code: the exit code that is expected, None for any."""
    with daemon(command, log, environment) as process:
        found = process.guard.wait(timeout)
    output = log.read_text(errors="replace")
    assert code is None or found == code, f"{command[0]}: exit code {found}\n{output[-6000:]}"
    return output


def wait_until(ready: Callable[[], bool], seconds: float, daemons: list[Daemon]) -> None:
    """Wait until something is true; a daemon that ends before is an error with the end of its log."""
    end = time.monotonic() + seconds
    while not ready():
        for process in daemons:
            process.require_running()
        if time.monotonic() > end:
            tails = [f"{d.log}:\n{d.log.read_text(errors='replace')[-1500:]}" for d in daemons]
            raise AssertionError(f"not ready after {seconds:.0f} s\n" + "\n".join(tails))
        time.sleep(0.1)


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def addresses_listened_on(daemons: list[Daemon]) -> set[str]:
    """The IP addresses of all ports that these daemons and their descendants listen on."""
    found = set()
    for process in (process for one in daemons for process in one.descendants()):
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip.removeprefix("::ffff:"))
    return found


def python_environment(**more: str) -> Environment:
    """As after `source .venv/bin/activate`, Spark's driver on the loopback interface."""
    binaries = Path(sys.executable).parent
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK_", "SPARK_", "HADOOP_"))}
    return {**clean, "PATH": f"{binaries}:{os.environ['PATH']}", "SPARK_LOCAL_IP": LOOPBACK, **more}
