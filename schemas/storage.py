"""How a whole output appears at once: staging name, rename, `_SUCCESS`.

Paths may be local or anything fsspec opens (`webhdfs://`, `s3://`): the stages meet only here.
"""

import json
import uuid
from typing import Any

from schemas.errors import InputError
from schemas.samples import SUCCESS_NAME


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path, and the path as that file system writes it."""
    from fsspec.core import url_to_fs

    return url_to_fs(str(path))


def is_complete(folder: str) -> bool:
    """True where a folder was published whole."""
    fs, path = filesystem(folder)
    return bool(fs.exists(f"{path}/{SUCCESS_NAME}"))


def staging_name(folder: str) -> str:
    """A new hidden sibling of a folder, so that publishing it is one rename."""
    parent, _, name = str(folder).rstrip("/").rpartition("/")
    hidden = f".{name}.staging-{uuid.uuid4().hex[:12]}"
    return f"{parent}/{hidden}" if parent or str(folder).startswith("/") else hidden


def refuse_complete(folder: str, overwrite: bool) -> None:
    """Stop before any work where the output already stands and must not be replaced."""
    fs, path = filesystem(folder)
    if overwrite or not fs.exists(path) or not fs.ls(path, detail=False):
        return
    state = "a complete output" if is_complete(folder) else "a folder that is not empty"
    raise InputError(
        f"{folder}: found {state}, expected no folder there. Choose another one or pass --overwrite."
    )


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


def publish(staging: str, folder: str) -> None:
    """Mark a staged folder complete and rename it to its final name, replacing what stood there."""
    fs, source = filesystem(staging)
    _, target = filesystem(folder)
    fs.touch(f"{source}/{SUCCESS_NAME}")
    replaced = None
    if fs.exists(target):
        replaced = filesystem(staging_name(folder))[1]
        fs.mv(target, replaced, recursive=True)
    fs.makedirs(target.rpartition("/")[0] or ".", exist_ok=True)
    fs.mv(source, target, recursive=True)
    if replaced:
        fs.rm(replaced, recursive=True)


def discard(folder: str) -> None:
    """Remove a staged folder if it is there."""
    fs, path = filesystem(folder)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a JSON file whole: to a temporary sibling, then renamed."""
    fs, target = filesystem(path)
    parent, _, name = target.rpartition("/")
    fs.makedirs(parent or ".", exist_ok=True)
    temporary = f"{parent}/.{name}.{uuid.uuid4().hex[:8]}" if parent else f".{name}.{uuid.uuid4().hex[:8]}"
    with fs.open(temporary, "w") as stream:
        json.dump(content, stream, indent=2)
        stream.write("\n")
    if fs.exists(target):
        fs.rm(target)
    fs.mv(temporary, target)


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
