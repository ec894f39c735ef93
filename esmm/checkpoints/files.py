"""A checkpoint's files: their names, which checkpoints a run has, and how what is on the disk is asked for.

    checkpoints/step-000123/
        state.json                          see esmm.checkpoints.state
        dense.safetensors                   the network and its optimiser
        table-00000-of-00002.safetensors    rows 0, 2, 4, ... of the table and their optimiser state

A folder without a leading dot is complete: it gets that name when all its files are on the disk.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import InputError

FOLDER = "checkpoints"
STATE_FILE = "state.json"
DENSE_FILE = "dense.safetensors"


def sha256_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def table_file(shard: int, num_shards: int) -> str:
    return f"table-{shard:05d}-of-{num_shards:05d}.safetensors"


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:06d}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def complete_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    folder = run / FOLDER
    with reading(folder):
        names = os.listdir(folder) if is_there(folder) else []
    found = (name for name in names if name.startswith("step-") and name.removeprefix("step-").isdigit())
    return sorted((folder / name for name in found), key=step_of)


def newest_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of a run, or an `InputError`."""
    found = complete_checkpoints(run)
    if not found:
        raise InputError(f"{run / FOLDER}: expected a checkpoint (step-...), found none. Train again.")
    return found[-1]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What keeps a file or folder from being read, such as a network folder that is away, says nothing of it:
    an `InputError`, and never a `DamagedError`, for which others are taken or a run begins anew.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Nothing was changed. Check the disk or the network "
            "folder and its permissions, then try again."
        ) from error


def is_there(path: Path) -> bool:
    """Unlike `Path.exists` it does not take a folder that cannot be looked into for an empty one."""
    with reading(path):
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
        return True
