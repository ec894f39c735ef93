"""What a raw file was when the job listed it, and whether it still is that where a task opens it.

Byte ranges follow from the listed sizes. A file that has changed meanwhile would lose lines, or its last
ones would never be read, and nothing else would tell.
"""

import io
from typing import IO, Any, NamedTuple, cast

from fsspec.spec import AbstractBufferedFile

from cli.errors import InputError
from storage.filesystems import filesystem

# What changes with a file's content: of object stores; of local disks and HDFS.
VERSION_KEYS = ("ETag", "etag", "mtime")
ADVICE = "Wait until the logs are written, then run the job again."


class Listed(NamedTuple):
    """A file as it was listed. size: bytes as stored; version: "" where the file system has none."""

    size: int
    version: str = ""


def listed(info: dict[str, Any]) -> Listed:
    """From the details that fsspec gives of a file."""
    version = next((str(info[key]) for key in VERSION_KEYS if info.get(key) is not None), "")
    return Listed(int(info["size"]), version)


def open_as_listed(path: str, before: Listed, block_size: int) -> IO[bytes]:
    """The stored bytes of a file; an `InputError` where it is not what was listed."""
    fs, name = filesystem(path)
    try:
        stream = fs.open(name, "rb", block_size=block_size)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: it was listed, but is not there: removed, or a link that leads nowhere. {ADVICE}"
        ) from error
    require_as_listed(path, before, stream)
    # fsspec's own readline takes no size.
    return cast(IO[bytes], io.BufferedReader(stream) if isinstance(stream, AbstractBufferedFile) else stream)


def require_as_listed(path: str, before: Listed, stream: Any) -> None:
    """Compare an open file with its listing.

    A stream of a remote file has asked for the details when it was opened, so this costs no request.
    """
    fs, name = filesystem(path)
    now = listed(getattr(stream, "details", None) or fs.info(name))
    if now.size != before.size:
        raise InputError(
            f"{path}: it changed while the job was running: expected {before.size} bytes as at the "
            f"beginning, found {now.size}. {ADVICE}"
        )
    if before.version and now.version and now.version != before.version:
        raise InputError(
            f"{path}: it was replaced while the job was running: expected its {before.size} bytes of version "
            f"{before.version}, found as many of version {now.version}. {ADVICE}"
        )
