"""JSON files, and others of text, that are there whole or not at all."""

import json
import uuid
from typing import Any

from cli.errors import InputError
from storage.filesystems import can_rename, filesystem, parent_of
from storage.publishing import rename


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a file whole: to a temporary sibling, then renamed. An object store needs no rename for that: an
    object appears when all of it is there."""
    fs, target = filesystem(path)
    fs.makedirs(parent_of(target), exist_ok=True)
    if not can_rename(fs):
        fs.pipe_file(target, text.encode())
        return
    above, slash, name = target.rpartition("/")
    temporary = f"{above}{slash}.{name}.{uuid.uuid4().hex[:8]}"
    with fs.open(temporary, "wb") as stream:
        stream.write(text.encode())
    rename(fs, temporary, target)


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
