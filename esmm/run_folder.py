"""The folder of a training run: who may write it, and what made it.

    config.yaml     the configuration with every default     train.jsonl    one JSON object per log line
    versions.json   of Python and the libraries              checkpoints/   see esmm.checkpoint
    command.txt     the command that made it                 _SUCCESS       written last

A local or shared POSIX folder: all workers write their checkpoint shards into it.
"""

import fcntl
import json
import platform
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from esmm.config import Config
from schemas.errors import InputError
from schemas.samples import SUCCESS_NAME

LOCK_NAME = ".lock"
CONFIG_NAME = "config.yaml"
PACKAGES = ("torch", "horovod", "petastorm", "pyarrow", "numpy", "numba", "safetensors", "pydantic")


class RunFolder:
    """A run folder being written by this process, and by no other as long as it lives."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def start(cls, path: Path, overwrite: bool) -> "RunFolder":
        """Lock the folder and empty it. What a crashed run left there makes place without asking.

        `InputError` where the run is complete (unless overwrite), is being written by another process,
        or where the folder holds something else than a run.
        """
        refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK_NAME).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{path}: another training run is writing there. Wait for it or choose another folder."
            ) from error
        if (path / SUCCESS_NAME).exists() and not overwrite:
            raise InputError(
                f"{path}: found a complete run, expected none. Choose another folder or pass --overwrite."
            )
        for entry in path.iterdir():
            if entry.name != LOCK_NAME:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return cls(path, lock)

    def describe(self, config: Config, arguments: list[str], workers: int) -> None:
        """Write what the run is made with: configuration, versions, command."""
        (self.path / CONFIG_NAME).write_text(config.to_yaml())
        versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        (self.path / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
        launcher = ["horovodrun", "-np", str(workers)] if workers > 1 else []
        command = shlex.join([*launcher, "python", "-m", "esmm.train", *arguments])
        (self.path / "command.txt").write_text(command + "\n")

    def record(self, entry: dict[str, Any]) -> None:
        """Append one JSON object to train.jsonl."""
        with (self.path / "train.jsonl").open("a") as stream:
            stream.write(json.dumps(entry) + "\n")

    def finish(self) -> None:
        """Mark the run complete."""
        (self.path / SUCCESS_NAME).touch()
        self.close()

    def close(self) -> None:
        """Let others write the folder; a process that ends does so too."""
        self._lock.close()


def refuse_foreign(path: Path) -> None:
    """Stop where starting a run would remove files that no run has written."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a run folder or nothing, found a file. Choose another folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / LOCK_NAME).exists():
        raise InputError(
            f"{path}: found a folder that holds something else than a run. Choose another folder."
        )


def read_config(path: Path) -> Config:
    """The configuration of a complete run, or an `InputError`."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"{path}: expected a run folder, found {found}. Make it with esmm.train.")
    if not (path / SUCCESS_NAME).exists():
        raise InputError(
            f"{path}: expected a complete run ({SUCCESS_NAME} inside), found none. Let esmm.train finish."
        )
    return Config.load(str(path / CONFIG_NAME), [])
