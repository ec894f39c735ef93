"""How a whole output appears at once: staging name, rename, `_SUCCESS`.

Paths may be local, on HDFS (`webhdfs://namenode:9870/path`) or on anything else that fsspec opens: the
stages meet only here. Locally and on HDFS a rename is one atomic step, so that of two jobs that publish
to one place one wins whole; object stores have no such step.
"""

import contextlib
import errno
import json
import os
import uuid
from typing import Any

from schemas.errors import InputError
from schemas.samples import SUCCESS_NAME


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path, and the path as that file system writes it."""
    url = str(path)
    if url.startswith("hdfs://"):
        raise InputError(_explain_hdfs(url))
    if url.startswith("webhdfs://"):
        from schemas.webhdfs import WebHdfs

        return WebHdfs.of(url)
    from fsspec.core import url_to_fs

    return url_to_fs(url)


def _explain_hdfs(url: str) -> str:
    host, _, path = url.removeprefix("hdfs://").partition("/")
    host = host.partition(":")[0] or "NAMENODE"
    return (
        f"{url}: expected the HTTP address of HDFS, which Python and Spark both read, found its RPC address. "
        f"Give webhdfs://{host}:9870/{path} (9870, or whatever the port of the namenode's web page is)."
    )


def is_complete(folder: str) -> bool:
    """True where a folder was published whole."""
    fs, path = filesystem(folder)
    return bool(fs.exists(f"{path}/{SUCCESS_NAME}"))


def staging_name(folder: str) -> str:
    """A new hidden sibling of a folder, so that publishing it is one rename."""
    parent, _, name = str(folder).rstrip("/").rpartition("/")
    hidden = f".{name}.staging-{uuid.uuid4().hex[:12]}"
    return f"{parent}/{hidden}" if parent or str(folder).startswith("/") else hidden


def require_published(folder: str, content: str, command: str) -> None:
    """Stop unless a folder was published whole. content: what it should hold; command: what makes it."""
    fs, path = filesystem(folder)
    if not fs.isdir(path):
        found = "a file" if fs.exists(path) else "nothing"
        raise InputError(f"{folder}: expected a folder of {content}, found {found}. Make it with {command}.")
    if not is_complete(folder):
        raise InputError(
            f"{folder}: expected published {content} ({SUCCESS_NAME} inside), found none. "
            f"Make them with {command}, or wait until it has finished."
        )


def publish(staging: str, folder: str, overwrite: bool) -> None:
    """Mark a staged folder complete and rename it to its final name.

    Raises InputError where another job has published there meanwhile, unless overwrite:
    then it is replaced. Two jobs at once never mix their files, whichever comes last.
    """
    fs, source = filesystem(staging)
    fs.touch(f"{source}/{SUCCESS_NAME}")
    try:
        replace(staging, folder) if overwrite else _rename(fs, source, filesystem(folder)[1])
    except FileExistsError as error:
        raise InputError(
            f"{folder}: another job has published there while this one was running. "
            "Nothing of this job was published. Choose another folder or pass --overwrite."
        ) from error


def replace(source: str, folder: str) -> None:
    """Rename a folder to a name, whatever stands there; that is moved aside first and removed afterwards.

    A process that is killed between the two renames leaves the old folder as a hidden sibling.
    """
    fs, path = filesystem(source)
    _, target = filesystem(folder)
    aside = []
    while True:
        try:
            _rename(fs, path, target)
            break
        except FileExistsError:
            hidden = filesystem(staging_name(folder))[1]
            with contextlib.suppress(FileNotFoundError):  # another job was faster
                _rename(fs, target, hidden)
                aside.append(hidden)
    for hidden in aside:
        fs.rm(hidden, recursive=True)


def _rename(fs: Any, source: str, target: str) -> None:
    """rename(2): a file replaces a file, a folder an empty folder; else `FileExistsError`."""
    from fsspec.implementations.local import LocalFileSystem

    fs.makedirs(_parent(target), exist_ok=True)
    if isinstance(fs, LocalFileSystem):
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "something stands there already", target) from error
            raise
    elif "webhdfs" in fs.protocol or not fs.isdir(target):
        fs.mv(source, target, recursive=True)
    else:
        raise FileExistsError(errno.EEXIST, "something stands there already", target)


def _parent(path: str) -> str:
    above, root, _ = path.rpartition("/")
    return above or root or "."


def discard(folder: str) -> None:
    """Remove a staged folder if it is there."""
    fs, path = filesystem(folder)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a JSON file whole: to a temporary sibling, then renamed."""
    fs, target = filesystem(path)
    fs.makedirs(_parent(target), exist_ok=True)
    above, slash, name = target.rpartition("/")
    temporary = f"{above}{slash}.{name}.{uuid.uuid4().hex[:8]}"
    with fs.open(temporary, "w") as stream:
        json.dump(content, stream, indent=2)
        stream.write("\n")
    _rename(fs, temporary, target)


def read_json(path: str) -> dict[str, Any]:
    """Read a JSON object; a missing or broken file is an `InputError`."""
    fs, target = filesystem(path)
    if not fs.exists(target):
        raise InputError(f"{path}: file not found.")
    try:
        with fs.open(target, "r") as stream:
            content = json.load(stream)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content
