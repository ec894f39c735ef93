"""What is asked of Airflow: again where it is busy, and in its own words where it refuses."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cli.errors import InputError
from scripts import airflow_api
from scripts.airflow_api import Api


@contextmanager
def answering(codes: list[int]) -> Iterator[tuple[Api, Callable[[], int]]]:
    """An Airflow that answers by these codes in turn, and how many it has left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(codes.pop(0))
            self.end_headers()
            self.wfile.write(json.dumps({"id": 7, "detail": "Database is locked."}).encode())

        def log_message(self, *_: object) -> None:
            """Not in the tests' output."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Api(f"http://127.0.0.1:{server.server_port}", "token"), lambda: len(codes)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_database_that_is_busy_is_asked_again() -> None:
    with answering([503, 503, 200]) as (api, left):
        assert api.backfill("esmm_daily", "2026-11-01", "2026-11-02") == 7
        assert left() == 0


@pytest.mark.parametrize(("code", "asked"), [(409, 1), (503, 2)])
def test_a_refusal_is_told_in_airflows_words(code: int, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one at once, and a database that stays busy after a while."""
    monkeypatch.setattr(airflow_api, "PATIENCE", 0.5)
    with answering([code] * 3) as (api, left):
        with pytest.raises(InputError, match=rf"Airflow answers {code}: .*Database is locked"):
            api.backfill("esmm_daily", "2026-11-01", "2026-11-02")
        assert left() == 3 - asked
