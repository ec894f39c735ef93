"""What a command may write to: nothing, an empty folder or, with --overwrite, an output of its own kind.

An output is told by its manifest and by the names in it. A folder that holds anything else besides, be it
a hidden file, is never replaced: neither the inputs of the command nor somebody's notes are in the way of
a wrong --out.
"""

import json
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from cli.errors import InputError
from storage import publishing, staging
from storage.filesystems import can_rename, filesystem, is_local
from storage.publishing import SUCCESS_NAME

MOST_NAMED = 3  # of the names that do not belong there, in a message


@dataclass(frozen=True)
class Kind:
    """What the outputs of one command have in common.

    content: in the words of a message; manifest: the JSON file in them, with its keys among others, if they
    have one; names: a regular expression of the paths below the folder, without manifest and `_SUCCESS`.
    """

    content: str
    manifest: str | None
    keys: frozenset[str]
    names: str

    def has(self, name: str) -> bool:
        """Whether a path below the folder is one that such an output may have."""
        return name in (self.manifest, SUCCESS_NAME) or re.fullmatch(self.names, name) is not None


def refuse_taken(folder: str, kind: Kind, overwrite: bool) -> None:
    """Stop before any work where something stands that must not be replaced."""
    if overwrite:
        refuse_foreign(folder, kind)
        return
    fs, path = filesystem(folder)
    if not fs.exists(path) or (fs.isdir(path) and not fs.ls(path, detail=False)):
        return
    found = "a file" if not fs.isdir(path) else "a folder that is not empty"
    found = "a complete output" if publishing.is_complete(folder) else found
    raise InputError(
        f"{folder}: found {found}, expected no folder there. Choose another one or pass --overwrite."
    )


def refuse_foreign(folder: str, kind: Kind) -> None:
    """Stop where replacing would remove something else than an output of this kind."""
    found = foreign(folder, kind)
    if found is not None:
        raise InputError(
            f"{folder}: expected nothing, an empty folder or {kind.content} to replace, found {found}. "
            "Nothing was replaced. Choose another folder, or move away what is there."
        )


def foreign(folder: str, kind: Kind) -> str | None:
    """What stands there, in words, if it is neither nothing nor an empty folder nor such an output."""
    fs, path = filesystem(folder)
    try:
        return _foreign(fs, path, kind)
    except FileNotFoundError:  # nothing there, or another job that has looked is replacing it now
        return None


def _foreign(fs: Any, path: str, kind: Kind) -> str | None:
    if fs.info(path)["type"] != "directory":
        return "a file"
    names = list(_names(fs, path, kind))
    others = [name for name in names if not kind.has(name)]
    if others:
        return f"a folder with {', '.join(others[:MOST_NAMED])} in it"
    if not names or kind.manifest is None:
        return None
    # A copy that failed on an object store has left what comes before the manifest.
    fits = _has_keys(fs, path, kind) if kind.manifest in names else not can_rename(fs)
    return None if fits else f"a folder without the {kind.manifest} of {kind.content}"


def _names(fs: Any, folder: str, kind: Kind, above: str = "") -> Iterator[str]:
    """The paths below a folder, but for what is in folders that such an output does not have."""
    for entry in sorted(fs.ls(folder, detail=True), key=lambda entry: entry["name"]):
        name = above + entry["name"].rstrip("/").rpartition("/")[2]
        yield name
        if entry["type"] == "directory" and kind.has(name):
            yield from _names(fs, entry["name"], kind, f"{name}/")


def _has_keys(fs: Any, path: str, kind: Kind) -> bool:
    with fs.open(f"{path}/{kind.manifest}", "rb") as stream:
        try:
            content = json.loads(stream.read())
        except ValueError:
            return False
    return isinstance(content, dict) and kind.keys <= content.keys()


def refuse_nested(folders: list[str]) -> None:
    """Stop where two outputs of one command are the same folder, or one is inside the other."""
    for inner, outer in permutations(folders, 2):
        if f"{_place(inner)}/".startswith(f"{_place(outer)}/"):
            raise InputError(
                f"{inner}: expected a folder outside the other output {outer}, found it inside or the same. "
                "Each of them is replaced whole. Choose another folder."
            )


def _place(folder: str) -> str:
    """A path by which two ways to write one folder are equal."""
    fs, path = filesystem(folder)
    if is_local(fs):
        return os.path.realpath(path)
    scheme, separator, rest = fs.unstrip_protocol(path).partition("://")
    return scheme + separator + posixpath.normpath(rest)


def publish(staged: str, folder: str, kind: Kind, overwrite: bool) -> None:
    """Put a staged folder in its place, and remove what killed jobs have left beside it.

    What stands there is looked at once more: it may be hours since `refuse_taken`.
    """
    if overwrite:
        refuse_foreign(folder, kind)
    publishing.publish(staged, folder, overwrite)
    staging.sweep(folder)
