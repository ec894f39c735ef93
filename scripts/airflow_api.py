"""Airflow's REST API, as far as a local Airflow is driven by it: much cheaper than its commands."""

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cli.errors import InputError

SECONDS = 60.0
BUSY, PATIENCE = 503, 20.0  # SQLite has one writer: Airflow has done nothing, and asks to come again


@dataclass(frozen=True)
class Api:
    """page: its address. token: of a user who is logged in."""

    page: str
    token: str

    @classmethod
    def log_in(cls, page: str, user: str, password: str) -> "Api":
        found = _ask(f"{page}/auth/token", "POST", {"username": user, "password": password})
        return cls(page, found["access_token"])

    def ask(self, path: str, method: str = "GET", content: Any = None) -> Any:
        """What it answers; an `InputError` with its words where it refuses."""
        return _ask(f"{self.page}/api/v2{path}", method, content, {"Authorization": f"Bearer {self.token}"})

    def dag_ids(self) -> set[str]:
        return {one["dag_id"] for one in self.ask("/dags?limit=100")["dags"]}

    def import_errors(self) -> list[str]:
        """What is wrong with DAG files, the last line of each."""
        found = self.ask("/importErrors")["import_errors"]
        return [f"{one['filename']}: {one['stack_trace'].strip().splitlines()[-1]}" for one in found]

    def unpause(self, dag: str) -> None:
        self.ask(f"/dags/{dag}?update_mask=is_paused", "PATCH", {"is_paused": False})

    def backfill(self, dag: str, first: str, last: str, **options: Any) -> int:
        """Its number. first, last: days, ISO."""
        content = {
            "dag_id": dag,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T23:00:00Z",
            "max_active_runs": 1,
            "reprocess_behavior": "failed",  # none is refused where a task depends on the past
            "dag_run_conf": {},
        }
        return int(self.ask("/backfills", "POST", content | options)["id"])

    def is_backfilling(self, dag: str) -> bool:
        """Airflow takes one backfill of a DAG at a time, and notices a while later that one has ended."""
        found = self.ask(f"/backfills?dag_id={dag}&limit=100")["backfills"]
        return any(one["completed_at"] is None for one in found)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """Oldest first."""
        found: list[dict[str, Any]] = self.ask(f"/dags/{dag}/dagRuns?limit=100&order_by=run_after")[
            "dag_runs"
        ]
        return found

    def tasks(self, dag: str, run: str) -> dict[str, str]:
        """By task of a run: its state."""
        found = self.ask(f"/dags/{dag}/dagRuns/{run}/taskInstances?limit=100")["task_instances"]
        return {one["task_id"]: str(one["state"]) for one in found}


def _ask(url: str, method: str, content: Any = None, headers: dict[str, str] | None = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    request = Request(
        url, data=body, method=method, headers={"Content-Type": "application/json", **(headers or {})}
    )
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urlopen(request, timeout=SECONDS) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except HTTPError as error:
            if error.code != BUSY or time.monotonic() > end:
                told = error.read().decode(errors="replace")[:1000]
                raise InputError(f"{method} {url}: Airflow answers {error.code}: {told}") from error
            time.sleep(1)
