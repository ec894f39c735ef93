"""HDFS by its own protocol: the client hdfs-native, with the errors and the files of a local file system.

A URL is what Hadoop and Spark write: `hdfs://NAMENODE:8020/path`, or `hdfs://NAMESERVICE/path` and
`hdfs:///path`, which HADOOP_CONF_DIR explains. The user is Hadoop's: HADOOP_USER_NAME, else the one that
Spark works for, else the one of this process.

What hdfs-native 0.14 does otherwise: most of what a namenode refuses is a `RuntimeError` with a Java stack
trace in it, a file that was given up is closed like a whole one, a reader knows no `readinto` and no lines,
a path ends at its first # or ?, and a namenode that does not answer is waited for three minutes.
"""

import contextlib
import errno
import io
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from hdfs_native import FileReader
from hdfs_native.fsspec import HdfsFileSystem

from cli.errors import InputError, StoreError

SCHEME = "hdfs://"
BUFFER_BYTES = 64 << 10
SECONDS_TO_READ_AGAIN = (0.5, 2.0)  # after a read that failed, before another try
# Of one namenode: 6 seconds. Of several, where one may take over, Hadoop's configuration says how often.
CONNECTION_ATTEMPTS = {"dfs.client.failover.max.attempts": "3"}
# What a namenode refuses: the exception's class and the first line of its message.
REFUSAL = re.compile(r'RPCError\("(?:[\w$]+\.)*([\w$]+)", "(.*?)(?:\\n|"\))')
ERRNO = {
    "PathIsNotEmptyDirectoryException": errno.ENOTEMPTY,
    "ParentNotDirectoryException": errno.ENOTDIR,
    "AccessControlException": errno.EACCES,
    "DSQuotaExceededException": errno.EDQUOT,
    "NSQuotaExceededException": errno.EDQUOT,
}
# A client that is freed waits for its threads, for ever in a process that was forked and so has none: Spark's
# launcher forks, and fsspec empties its cache of file systems then.
_KEPT: list[Any] = []


class Hdfs(HdfsFileSystem):
    """The file system of one namenode or of several that stand in for each other; see the module's text."""

    def __init__(self, host: str | None, port: int | None, user: str | None) -> None:
        if self._cached:
            return
        if user is not None:
            os.environ["HADOOP_USER_NAME"] = user  # where hdfs-native looks for it
        super().__init__(host, port, **(CONNECTION_ATTEMPTS if port else {}))
        _KEPT.append(self.client)

    @classmethod
    def of(cls, url: str) -> tuple["Hdfs", str]:
        """The file system of a URL and the path in it."""
        host, _, port = url.removeprefix(SCHEME).partition("/")[0].partition(":")
        if port and not port.isdigit():
            raise InputError(f"{url}: expected hdfs://NAMENODE:PORT/path, found the port {port}.")
        return cls(host or None, int(port) if port else None, hadoop_user()), cls._strip_protocol(url)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        if path.startswith(SCHEME):
            path = "/" + path.removeprefix(SCHEME).partition("/")[2]
        return path.rstrip("/") or "/"

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path."""
        port = f":{self.port}" if self.port else ""
        return f"{SCHEME}{self.host or ''}{port}{self._strip_protocol(name)}"

    def _convert_file_status(self, file_status: Any) -> dict[str, Any]:
        known = super()._convert_file_status(file_status)
        return {**known, "mtime": file_status.modification_time / 1000}

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        with self.errors(path):
            return super().info(path, **options)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        with self.errors(path):
            return super().ls(path, detail, **options)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        with self.errors(path):
            super().mkdir(path, create_parents, **options)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        with self.errors(path):
            super().rm(self._strip_protocol(path), recursive, maxdepth)

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        """What rename(2) does: one atomic step; a file replaces a file, a folder an empty folder.

        `FileExistsError` where something else stands there. The folder above path2 must exist.
        """
        try:
            with self.errors(path1):
                super().mv(path1, path2, overwrite=True)
        except OSError as error:
            # Both are plain IOExceptions of the namenode.
            if "is not empty" in str(error) or "must both be" in str(error):
                place = self.unstrip_protocol(path2)
                raise FileExistsError(errno.EEXIST, str(error.strerror), place) from error
            raise

    def _open(  # type: ignore[override]
        self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any
    ) -> Any:
        if mode == "rb":
            return io.BufferedReader(_Reader(self, self._strip_protocol(path)), block_size or BUFFER_BYTES)
        if mode == "wb":
            return _Writer(self, self._strip_protocol(path))
        raise ValueError(f"mode: expected rb or wb, found {mode}")

    @contextlib.contextmanager
    def errors(self, path: str) -> Iterator[None]:
        """Whatever hdfs-native raises becomes an `OSError` with a number that names the place."""
        place = self.unstrip_protocol(path)
        try:
            yield
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            number = {FileNotFoundError: errno.ENOENT, FileExistsError: errno.EEXIST}.get(type(error))
            raise OSError(number or errno.EACCES, _first_line(str(error)), place) from error
        except OSError as error:
            raise StoreError(
                f"{place}: expected a namenode that answers, found none ({error}). Check that it runs; the "
                "port is that of fs.defaultFS, usually 8020 or 9000, not the one of its web page."
            ) from error
        except RuntimeError as error:
            kind, text = (REFUSAL.findall(str(error)) or [("", _first_line(str(error)))])[0]
            raise OSError(ERRNO.get(kind, errno.EIO), text, place) from error


class _Reader(io.RawIOBase):
    """A file read in pieces, each from any datanode that has it. hdfs-native compares their checksums.

    Where all of them fail it asks the namenode again: it may know another one by then.
    """

    def __init__(self, fs: Hdfs, path: str) -> None:
        self._fs = fs
        self._path = path
        self._position = 0
        self._file = self._opened()
        self._size = len(self._file)

    def _opened(self) -> FileReader:
        with self._fs.errors(self._path):
            return self._fs.client.read(self._path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = begin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(0, self._size - self._position))
        data = self._content(length) if length else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _content(self, length: int) -> bytes:
        for pause in SECONDS_TO_READ_AGAIN:
            try:
                return self._read(length)
            except (StoreError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.EIO:
                    raise
                time.sleep(pause)
                self._file = self._opened()
        return self._read(length)

    def _read(self, length: int) -> bytes:
        with self._fs.errors(self._path):
            data = self._file.read_range(self._position, length)
        if len(data) != length:
            place = self._fs.unstrip_protocol(self._path)
            raise OSError(errno.EIO, f"{len(data)} bytes instead of {length}", place)
        return data


class _Writer(io.RawIOBase):
    """A new file. Where the `with` block fails, or nobody closes it, it is removed."""

    def __init__(self, fs: Hdfs, path: str) -> None:
        self._fs = fs
        self._path = path
        self._written = 0
        with fs.errors(path):
            self._file: Any = HdfsFileSystem._open(fs, path, "wb")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with self._fs.errors(self._path):
            num = int(self._file.write(data))
        self._written += num
        return num

    def tell(self) -> int:
        return self._written

    def close(self) -> None:
        """Have the file complete."""
        if self.closed:
            return
        try:
            with self._fs.errors(self._path):
                self._file.close()
        finally:
            super().close()

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close() if kind is None else self._give_up()

    def __del__(self) -> None:
        # IOBase would close, that is complete, what was given up.
        if not self.closed:
            self._give_up()

    def _give_up(self) -> None:
        io.RawIOBase.close(self)
        with contextlib.suppress(StoreError, OSError):
            self._fs.rm(self._path)


def hadoop_user() -> str | None:
    """The user that Hadoop's and Spark's own clients work as; None: as hdfs-native finds it."""
    return os.environ.get("HADOOP_USER_NAME") or os.environ.get("SPARK_USER")


def _first_line(text: str) -> str:
    return text.partition("\n")[0].partition("\\n")[0][:300]
