"""How a whole output appears at once: staging name, rename, `_SUCCESS`.

Paths may be local, on HDFS (`hdfs://namenode:8020/path`) or on anything else that fsspec opens: the
stages meet only here. Locally and on HDFS a rename is one atomic step, so that of two jobs that publish
to one place one wins whole. Object stores have no such step: there the files are copied, `_SUCCESS` last,
so that nobody takes a part for the whole; docs/object_stores.md says what they do not promise.
"""

import contextlib
import errno
import itertools
import os
import uuid
from typing import Any

from cli.errors import InputError
from storage.filesystems import can_rename, filesystem, is_hdfs, parent_of

SUCCESS_NAME = "_SUCCESS"  # in a folder that was published whole


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
    """Mark a staged folder complete and give it its final name.

    Raises InputError where another job has published there meanwhile, unless overwrite:
    then it is replaced. Where a rename is atomic two jobs at once never mix their files, whichever comes
    last. Where anything else fails the staged folder stays, complete, and the error names it.
    """
    fs, source = filesystem(staging)
    fs.touch(f"{source}/{SUCCESS_NAME}")
    try:
        replace(staging, folder) if overwrite else rename(fs, source, filesystem(folder)[1])
    except FileExistsError as error:
        fs.rm(f"{source}/{SUCCESS_NAME}")
        raise InputError(
            f"{folder}: another job has published there while this one was running. "
            "Nothing of this job was published. Choose another folder or pass --overwrite."
        ) from error
    except Exception as error:
        raise InputError(
            f"{folder}: the output is finished, but could not be put there "
            f"({type(error).__name__}: {error}). It is kept whole in {staging}: copy its files from there, "
            f"{SUCCESS_NAME} last, or run again with --overwrite and remove it."
        ) from error


def replace(source: str, folder: str) -> None:
    """Give a folder a name, whatever stands there; that is moved aside first and removed afterwards.

    A process that is killed between the two renames leaves the old folder as a hidden sibling. Where there
    is no rename the old folder is removed first, its `_SUCCESS` before all else.
    """
    fs, path = filesystem(source)
    _, target = filesystem(folder)
    if not can_rename(fs):
        _remove(fs, target)
    aside = []
    while True:
        try:
            rename(fs, path, target)
            break
        except FileExistsError:
            hidden = filesystem(staging_name(folder))[1]
            with contextlib.suppress(FileNotFoundError):  # another job was faster
                rename(fs, target, hidden)
                aside.append(hidden)
    for hidden in aside:
        fs.rm(hidden, recursive=True)


def rename(fs: Any, source: str, target: str) -> None:
    """rename(2): a file replaces a file, a folder an empty folder; else `FileExistsError`."""
    if not can_rename(fs):
        _copy(fs, source, target)
        return
    fs.makedirs(parent_of(target), exist_ok=True)
    if is_hdfs(fs):
        fs.mv(source, target)
        return
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise _exists(target) from error
        raise


def _copy(fs: Any, source: str, target: str) -> None:
    """A folder copied file by file, what says that it is whole at the end, and then removed."""
    if fs.exists(target) and (fs.isfile(target) or fs.find(target)):
        raise _exists(target)
    names = [path.removeprefix(source).lstrip("/") for path in fs.find(source)]
    for _, some in itertools.groupby(sorted(names, key=_turn), key=_turn):
        group = list(some)
        fs.copy([f"{source}/{name}" for name in group], [f"{target}/{name}" for name in group])
    fs.rm(source, recursive=True)


def _turn(name: str) -> int:
    """When a file of a folder is copied: what describes the others after them, `_SUCCESS` last."""
    return 2 if name == SUCCESS_NAME else int(name.startswith("_") and "/" not in name)


def _remove(fs: Any, path: str) -> None:
    """Remove whatever stands there; from the first moment on no reader takes the rest for the whole."""
    if fs.exists(f"{path}/{SUCCESS_NAME}"):
        fs.rm(f"{path}/{SUCCESS_NAME}")
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _exists(target: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "something stands there already", target)


def discard(folder: str) -> None:
    """Remove a staged folder, or the one around it, if it is there. A complete one stays: it could not be
    published, and holds all that its job has made."""
    fs, path = filesystem(folder)
    if fs.exists(path) and not any(name.rpartition("/")[2] == SUCCESS_NAME for name in fs.find(path)):
        fs.rm(path, recursive=True)
