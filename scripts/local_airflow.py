"""A local Airflow with daily retraining: page, scheduler, triggerer, on SQLite.

    make airflow                      the demo's days, on http://localhost:8080; Ctrl-C ends it
    .venv-airflow/bin/python -m scripts.local_airflow --settings my_settings.yaml --port 8081

Without --settings it draws logs of the last --days days, unpauses the DAGs and runs these
days. With them it starts Airflow and leaves the DAGs as they are. Everything is below --home; a second call
goes on with what is there. SIGINT and SIGTERM end it, with all of its processes.
"""

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from scripts.airflow_api import Api
from scripts.processes import end_all, subreaper

PROJECT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PYTHON = str(PROJECT / ".venv/bin/python")
# The page reads the tasks' logs from the disk: no further port is open for them.
OTHERS = (("scheduler", "--skip-serve-logs"), ("dag-processor",), ("triggerer", "--skip-serve-logs"))
DAGS = ("esmm_daily", "esmm_champion", "esmm_promote")
START_SECONDS = 180.0
LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class Airflow:
    """home: its folder. port: of its page. password: of the user admin."""

    home: Path
    port: int
    password: str
    environment: dict[str, str]

    @property
    def page(self) -> str:
        return f"http://localhost:{self.port}"

    def run(self, *words: str, timeout: float = 300) -> str:
        """One of Airflow's commands to its end; what it prints."""
        done = subprocess.run(
            [str(BIN / "airflow"), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise InputError(f"airflow {' '.join(words)} failed:\n{(done.stderr or done.stdout)[-2000:]}")
        return done.stdout


def free_port(wanted: int = 0) -> int:
    """This port, or any that nobody listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, wanted))
        except OSError as error:
            raise InputError(f"port {wanted}: in use. Choose another one with --port.") from error
        port: int = probe.getsockname()[1]
        return port


def prepare(home: Path, settings: Path, port: int) -> Airflow:
    """Its database and its user; what is there stays."""
    home.mkdir(parents=True, exist_ok=True)
    users = home / "passwords.json"
    if not users.exists():
        users.touch(mode=0o600)
        users.write_text(json.dumps({"admin": secrets.token_urlsafe(9)}))
    made = Airflow(
        home,
        free_port(port),
        json.loads(users.read_text())["admin"],
        os.environ | _settings(home, port) | {"ESMM_SETTINGS": str(settings)},
    )
    made.run("db", "migrate")
    return made


def _settings(home: Path, port: int) -> dict[str, str]:
    """Airflow's, as variables: they win over any airflow.cfg."""
    url = f"http://localhost:{port}"
    options = {
        "CORE__DAGS_FOLDER": str(PROJECT / "airflow_dags"),
        "CORE__PLUGINS_FOLDER": str(PROJECT / "airflow_dags/plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": str(os.cpu_count() or 1),  # by default there would be 32 task processes
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "API__BASE_URL": url,
        "API__HOST": LOCALHOST,
        "API__PORT": str(port),
        "API__WORKERS": "1",
        "API__SECRET_KEY": secrets.token_hex(16),
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    found = {f"AIRFLOW__{name}": value for name, value in options.items()}
    found["AIRFLOW_HOME"] = str(home)
    found["AIRFLOW_CONN_ESMM_SPARK"] = os.environ.get(
        "AIRFLOW_CONN_ESMM_SPARK", json.dumps({"conn_type": "spark", "host": "local[*]"})
    )
    found["ESMM_HOME"] = str(PROJECT)
    found["PATH"] = f"{PROJECT / '.venv/bin'}:{os.environ['PATH']}:{BIN}"
    return found


@contextmanager
def running(airflow: Airflow) -> Iterator[None]:
    """Its processes, from when the page answers; none of them is left afterwards."""
    subreaper()
    try:
        # A scheduler that goes on with a day before the server answers would fail its tasks.
        _wait_for_page(airflow, _start(airflow, "api-server"))
        for words in OTHERS:
            _start(airflow, *words)
        yield
    finally:
        end_all()


def _start(airflow: Airflow, *words: str) -> "subprocess.Popen[bytes]":
    """One of Airflow's processes, its output in a log of its name."""
    with (airflow.home / f"{words[0]}.log").open("ab") as log:
        return subprocess.Popen(
            [str(BIN / "airflow"), *words],
            env=airflow.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _wait_for_page(airflow: Airflow, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise InputError(f"airflow api-server has ended; see {airflow.home / 'api-server.log'}.")
        try:
            with urlopen(f"{airflow.page}/api/v2/monitor/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise InputError(f"{airflow.page}: no answer in {START_SECONDS:.0f} s; see {airflow.home}/*.log.")


def draw_days(raw: Path, days: list[date], contexts: int) -> None:
    """Logs of demo days that follow one another; those that are there stay."""
    for number, day in enumerate(days, 1):
        folder = raw / f"ds={day}"
        if (folder / "_SUCCESS").exists():
            continue
        print(f"drawing the logs of {day} ...", flush=True)
        command = [PYTHON, "-m", "jobs.make_demo_logs", "--day", str(number), "--contexts", str(contexts)]
        subprocess.run(
            [*command, "--out", str(folder), "--overwrite"], cwd=PROJECT, check=True, capture_output=True
        )


def last_days(number: int) -> list[date]:
    """Up to the newest whose run is due: a day ends at 03:00 of the next one (`schedule` in the settings)."""
    newest = (datetime.now(UTC) - timedelta(hours=27)).date()
    return [newest - timedelta(days=back) for back in reversed(range(number))]


def begin(airflow: Airflow, days: list[date]) -> Api:
    """Unpause the DAGs and run these days, in order."""
    api = Api.log_in(airflow.page, "admin", airflow.password)
    wait_for_dags(api)
    # Before it is unpaused: a run of the schedule for the same day at the same moment ends a scheduler.
    if not api.is_backfilling("esmm_daily"):  # one of a former call goes on by itself
        api.backfill("esmm_daily", str(days[0]), str(days[-1]))
    for name in DAGS:
        api.unpause(name)
    return api


def wait_for_dags(api: Api) -> None:
    """Until the DAG processor has read them."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if api.dag_ids() >= set(DAGS):
            return
        if errors := api.import_errors():
            raise InputError("\n".join(errors))
        time.sleep(1)
    raise InputError(f"expected the DAGs {', '.join(DAGS)}, found none in {START_SECONDS:.0f} s.")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("scripts.local_airflow", __doc__)
    parser.add_argument("--home", type=Path, default=PROJECT / "build/airflow", help="(%(default)s)")
    parser.add_argument("--settings", type=Path, help="instead of the demo's; see configs/daily.yaml")
    parser.add_argument("--port", type=int, default=8080, help="of the page (%(default)s)")
    parser.add_argument("--days", type=int, default=3, help="demo days to run (%(default)s)")
    parser.add_argument("--contexts", type=int, default=1000, help="of a demo day (%(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    days = last_days(args.days) if args.settings is None else []
    settings = args.settings or PROJECT / "configs/daily.yaml"
    draw_days(PROJECT / "build/daily/raw", days, args.contexts)
    print("starting Airflow ...", flush=True)
    airflow = prepare(args.home.absolute(), settings.absolute(), args.port)
    try:
        with running(airflow):
            print(f"\nAirflow: {airflow.page}   user: admin   password: {airflow.password}", flush=True)
            if days:
                begin(airflow, days)
                print(f"esmm_daily runs the days {days[0]} to {days[-1]}", flush=True)
            else:
                print("the DAGs are paused at first: unpause esmm_daily on the page", flush=True)
            print("Ctrl-C ends it", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    exit_with_message(main)
