"""What a reader of HDFS does when namenode or datanode fail: a small server that fails when it is told to."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from storage import webhdfs
from storage.webhdfs import WebHdfs

CONTENT = bytes(range(256)) * 8


class Hdfs(BaseHTTPRequestHandler):
    """One file, /file. failures: what becomes of the next requests for its content."""

    failures: list[str]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        found = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(found.query).items()}
        if query["op"] == "GETFILESTATUS":
            status = {"type": "FILE", "length": len(CONTENT), "pathSuffix": ""}
            self._answer(200, json.dumps({"FileStatus": status}).encode())
        elif found.path.startswith("/webhdfs"):
            port = self.server.server_address[1]
            self._answer(307, b"", Location=f"http://127.0.0.1:{port}/data/webhdfs/v1/file?{found.query}")
        else:
            begin = int(query["offset"])
            self._send(CONTENT[begin : begin + int(query["length"])])

    def _send(self, data: bytes) -> None:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "gone":
            self.close_connection = True
        elif failure == "short":
            self._answer(200, data[:-1])
        elif failure == "cut":
            self._answer(200, data[:-1], **{"Content-Length": str(len(data))})
            self.close_connection = True
        elif failure:
            message = {"exception": failure, "message": "no such thing"}
            self._answer(500, json.dumps({"RemoteException": message}).encode())
        else:
            self._answer(200, data)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def fs(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebHdfs]:
    monkeypatch.setattr(webhdfs, "SECONDS_TO_READ_AGAIN", (0.01, 0.01))
    monkeypatch.setattr(Hdfs, "failures", [], raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hdfs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield WebHdfs("127.0.0.1", server.server_address[1], user="someone")
    server.shutdown()
    thread.join()
    server.server_close()


def read(fs: WebHdfs, failures: list[str]) -> bytes:
    Hdfs.failures[:] = failures
    with fs.open("/file", "rb", cache_type="none") as stream:
        stream.seek(100)
        return bytes(stream.read(500))


@pytest.mark.parametrize("failure", ["IOException", "short", "cut", "gone"])
def test_a_range_is_asked_for_again(fs: WebHdfs, failure: str) -> None:
    assert read(fs, [failure, failure]) == CONTENT[100:600]


@pytest.mark.parametrize(
    ("failure", "message"), [("IOException", "no such thing"), ("short", "499 bytes instead of 500")]
)
def test_but_not_for_ever(fs: WebHdfs, failure: str, message: str) -> None:
    with pytest.raises(OSError, match=f"Errno 5.*{message}.*webhdfs://127.0.0.1:.*/file"):
        read(fs, [failure] * 3)


def test_a_file_that_is_gone_is_not_asked_for_again(fs: WebHdfs) -> None:
    with pytest.raises(FileNotFoundError):
        read(fs, ["FileNotFoundException"])
    assert not Hdfs.failures
