"""Spark's own cluster: a master and two workers as processes of their own on this machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import (
    LOOPBACK,
    Daemon,
    Environment,
    daemon,
    free_ports,
    listens,
    python_environment,
    wait_until,
)

DEPLOY = "org.apache.spark.deploy"


@dataclass(frozen=True)
class Standalone:
    """The running daemons. url: for `spark-submit --master`; work: what the executors leave behind."""

    url: str
    work: Path
    daemons: list[Daemon]

    def environment(self) -> Environment:
        """For spark-submit."""
        return python_environment()

    def executor_logs(self) -> list[str]:
        """What each executor of all applications has written."""
        return [path.read_text(errors="replace") for path in sorted(self.work.glob("*/app-*/*/stderr"))]


@contextmanager
def standalone(folder: Path) -> Iterator[Standalone]:
    """A master and two workers with one core each, all of their files in a folder."""
    port, page = free_ports(2)
    environment = python_environment()
    folder.mkdir(parents=True, exist_ok=True)
    url = f"spark://{LOOPBACK}:{port}"
    master = ["--host", LOOPBACK, "--port", str(port), "--webui-port", str(page)]
    worker = ["--host", LOOPBACK, "--webui-port", "0", "--cores", "1", "--memory", "1g"]
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> Daemon:
            command = ["spark-class", f"{DEPLOY}.{name.rstrip('12')}", *arguments]
            return stack.enter_context(daemon(command, folder / f"{name}.log", environment))

        daemons = [start("master.Master", *master)]
        wait_until(lambda: listens(port), 60, daemons)
        for name in ("worker.Worker1", "worker.Worker2"):
            daemons.append(start(name, *worker, "--work-dir", str(folder / name), url))
        log = folder / "master.Master.log"
        wait_until(lambda: log.read_text().count("Registering worker") == 2, 60, daemons)
        yield Standalone(url, folder, daemons)
