"""HDFS over HTTP: fsspec's client with one request per range, one upload per file and atomic renames.

A URL is `webhdfs://NAMENODE:PORT/path`, PORT that of the namenode's web page (9870). Spark's own readers
know the same URL, and Python needs no Hadoop library for it. The user is Hadoop's: HADOOP_USER_NAME,
else the one that Spark works for, else the one of this process.

What fsspec 2026.9 does otherwise: it appends to a file in blocks (a tenth of the speed), takes an error
page of a datanode for the content of a file, reports a namenode that does not answer as "no such file",
and renames a folder into another one that stands at the new name.
"""

import contextlib
import errno
import getpass
import io
import os
import tempfile
import time
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

import requests
from fsspec.implementations.webhdfs import WebHDFile, WebHDFS
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from cli.errors import InputError, StoreError

SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 20, 300
SECONDS_TO_READ_AGAIN = (0.5, 2.0)  # after a range that could not be read, before it is asked for again
# Hadoop's exceptions as the errors of a local file system.
ERRNO = {
    "FileNotFoundException": errno.ENOENT,
    "FileAlreadyExistsException": errno.EEXIST,
    "PathIsNotEmptyDirectoryException": errno.ENOTEMPTY,
    "AccessControlException": errno.EACCES,
    "SecurityException": errno.EACCES,
    "DSQuotaExceededException": errno.EDQUOT,
    "NSQuotaExceededException": errno.EDQUOT,
}


class _Adapter(HTTPAdapter):
    """Tries a connection again, and does not wait for ever. Enough connections for a pool of threads."""

    def __init__(self) -> None:
        retries = Retry(total=3, connect=3, read=0, redirect=0, backoff_factor=0.5)
        super().__init__(max_retries=retries, pool_maxsize=32)

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *rest: Any, **more: Any) -> Any:
        limits = timeout or (SECONDS_TO_CONNECT, SECONDS_TO_ANSWER)
        return super().send(request, stream, limits, *rest, **more)


class WebHdfs(WebHDFS):
    """The file system of one namenode; see the module's text."""

    def __init__(self, host: str, port: int, user: str) -> None:
        if self._cached:
            return
        self.authority = f"{host}:{port}"
        super().__init__(host, port, user=user)

    @classmethod
    def of(cls, url: str) -> tuple["WebHdfs", str]:
        """The file system of a URL and the path in it."""
        found = urlsplit(url)
        if not found.hostname or not found.port:
            raise InputError(
                f"{url}: expected webhdfs://NAMENODE:PORT/path with the port of the namenode's web page, "
                "usually 9870."
            )
        path = str(cls._strip_protocol(url)).rstrip("/") or "/"
        return cls(found.hostname, found.port, user=hadoop_user()), path

    def _connect(self) -> None:
        super()._connect()
        self.session.mount(self.url.partition("://")[0] + "://", _Adapter())

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path."""
        return f"webhdfs://{self.authority}{self._strip_protocol(name)}"

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """One request; whatever it is refused for becomes an `OSError` that names the place."""
        place = f"webhdfs://{self.authority}{unquote(url.partition('/webhdfs/v1')[2])}"
        place = place.partition("?")[0]
        try:
            answer = self.session.request(method, url, **options)
        except requests.ConnectionError as error:
            raise StoreError(
                f"{place}: expected a namenode or datanode at {url.split('/')[2]}, found none that answers. "
                "Check that it runs; the port is the one of the namenode's web page, usually 9870."
            ) from error
        except requests.RequestException as error:
            raise OSError(errno.EIO, str(error), place) from error
        if answer.status_code >= 400:
            raise _refusal(answer, place)
        return answer

    def _call(
        self,
        op: str,
        method: str = "get",
        path: str = "",
        data: Any = None,
        redirect: bool = True,
        **pars: Any,
    ) -> requests.Response:
        url = self._apply_proxy(self.url + quote(self._strip_protocol(path), safe="/="))
        pars = {**pars, **self.pars, "op": op.upper()}
        return self.request(method.upper(), url, params=pars, data=data, allow_redirects=redirect)

    def location(self, op: str, method: str, path: str, **pars: Any) -> str:
        """The datanode's URL for the content of a file."""
        answer = self._call(op, method, path, redirect=False, **pars)
        return str(self._apply_proxy(answer.headers["Location"]))

    # fsspec's own take every error for an absence.
    def exists(self, path: str, **_: Any) -> bool:
        return self._type(path) is not None

    def isdir(self, path: str) -> bool:
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        return self._type(path) == "file"

    def _type(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        """What rename(2) does: one atomic step; a file replaces a file, a folder an empty folder.

        `FileExistsError` where something else stands there. The folder above path2 must exist.
        """
        target = self._strip_protocol(path2)
        try:
            self._call("RENAME", "put", path1, destination=target, renameoptions="OVERWRITE")
        except OSError as error:
            # Both are plain IOExceptions of the namenode.
            if "is not empty" in str(error) or "must both be" in str(error):
                raise FileExistsError(errno.EEXIST, str(error.strerror), error.filename) from error
            raise

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        if mode == "rb":
            cache = options.get("cache_type", "readahead")
            return _Reader(self, path, block_size=block_size or self.blocksize, cache_type=cache)
        if mode == "wb":
            return _Upload(self, path)
        raise ValueError(f"mode: expected rb or wb, found {mode}")


class _Reader(WebHDFile):
    """A file read by ranges: each is one request to the namenode and one to a datanode.

    Where these fail, and not the file, it asks again: the namenode may know another datanode by then.
    """

    def __init__(self, fs: WebHdfs, path: str, **options: Any) -> None:
        super().__init__(fs, path, mode="rb", tempdir="", autocommit=True, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        begin, end = max(start, 0), min(end, self.size)
        if begin >= end:
            return b""
        for pause in SECONDS_TO_READ_AGAIN:
            try:
                return self._content(begin, end)
            except (StoreError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.EIO:
                    raise
                time.sleep(pause)
        return self._content(begin, end)

    def _content(self, begin: int, end: int) -> bytes:
        place = self.fs.unstrip_protocol(self.path)
        url = self.fs.location("OPEN", "get", self.path, offset=begin, length=end - begin)
        with self.fs.request("GET", url, stream=True) as answer:
            try:
                # Not `content`, which requests puts together from pieces of 10 kB.
                data = bytes(answer.raw.read())
            except HTTPError as error:
                raise OSError(errno.EIO, str(error), place) from error
        if len(data) != end - begin:
            raise OSError(errno.EIO, f"{len(data)} bytes instead of {end - begin}", place)
        return data

    def readline(self, size: int = -1) -> bytes:
        """As of any file: fsspec's knows no size."""
        if size < 0:
            return bytes(self.readuntil(b"\n"))
        begin, data = self.tell(), self.read(size)
        end = data.find(b"\n") + 1 or len(data)
        self.seek(begin + end)
        return data[:end]


class _Upload(io.RawIOBase):
    """A file written to a local temporary one and sent whole when it is closed.

    Where the `with` block fails, or nobody closes it, nothing is sent.
    """

    def __init__(self, fs: WebHdfs, path: str) -> None:
        self._fs, self._path = fs, path
        self._content: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._content.write(data)

    def tell(self) -> int:
        return self._content.tell()

    def close(self) -> None:
        """Send the file."""
        if self.closed:
            return
        try:
            self._content.seek(0)
            url = self._fs.location("CREATE", "put", self._path, overwrite="true")
            self._fs.request("PUT", url, data=self._content)
        finally:
            self._drop()

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close() if kind is None else self._drop()

    def __del__(self) -> None:
        # IOBase would close, that is send, what was given up.
        self._drop()

    def _drop(self) -> None:
        self._content.close()
        super().close()


def hadoop_user() -> str:
    """The user that Hadoop's and Spark's own clients work as."""
    return os.environ.get("HADOOP_USER_NAME") or os.environ.get("SPARK_USER") or getpass.getuser()


def _refusal(answer: requests.Response, place: str) -> OSError:
    kind, text = "", f"HTTP {answer.status_code} {answer.reason}"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        remote = answer.json()["RemoteException"]
        kind, text = remote["exception"], remote["message"].partition("\n")[0]
    return OSError(ERRNO.get(kind, errno.EIO), text, place)
