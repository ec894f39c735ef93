"""The folder of a training run: who may write it, and what made it.

    config.yaml     the configuration with every default     train.jsonl    one JSON object per log line
    versions.json   ours, Python's, the libraries'           checkpoints/   see esmm.checkpoints.state
    command.txt     the commands that made it                _SUCCESS       written last
    .former/        an unfinished run that it replaces, until it has a checkpoint: see esmm.checkpoints.former

A local or shared POSIX folder: all workers write their checkpoint shards into it. A run that replaces a
complete one is written beside it, as `.NAME.new`, and takes its place when it is complete itself.
"""

import json
import logging
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO
from uuid import uuid4

from cli.errors import InputError
from cli.version import WRITTEN_BY
from esmm.checkpoints import choosing, former
from esmm.checkpoints.files import complete_checkpoints, sync
from esmm.checkpoints.state import State
from esmm.config import Config
from schemas.train_log import LOG_NAME, LogEntry
from storage import publishing
from storage.locks import require_lock
from storage.publishing import SUCCESS_NAME

log = logging.getLogger(__name__)

LOCK_NAME = ".lock"
CONFIG_NAME = "config.yaml"
COMMAND_NAME = "command.txt"
SHARED_SECONDS = 30.0  # NFS may remember that long that there was no such file
SHARED_POLL_SECONDS = 0.1
PACKAGES = ("torch", "horovod", "petastorm", "pyarrow", "numpy", "numba", "safetensors", "pydantic")


class RunFolder:
    """A run folder being written by this process, and by no other as long as it lives.

    target: where the run is to be found in the end. path: where it is written until then. token: what the
    lock holds there, so that other workers can tell whether they see this folder (`require_shared`).
    """

    def __init__(self, target: Path, path: Path, locks: list[IO[str]]) -> None:
        self.target = target
        self.path = path
        self._locks = locks
        self.token = uuid4().hex

    @classmethod
    def start(cls, target: Path, overwrite: bool = False, resume: bool = False) -> "RunFolder":
        """Lock the folder and, but for `resume`, clear it for a new run.

        `InputError` where the run is complete or has checkpoints to go on from (unless overwrite or
        resume), is being written by another process, or where the folder holds something else than a run.
        """
        refuse_foreign(target)
        folder = cls(target, target, [_lock(target)])
        try:
            _repair(target)
            if not overwrite and not resume:
                _refuse_work(target)
            if overwrite and _is_replaced(target):
                folder.path = _beside(target)
                folder._locks.append(_lock(folder.path))
                _repair(folder.path)
            if not resume:
                folder.begin_anew()
            folder._sign()
        except BaseException:
            folder.close()
            raise
        return folder

    def _sign(self) -> None:
        """Write the token into the lock of the folder that is written to."""
        lock = self._locks[-1].fileno()
        with _writing(self.path / LOCK_NAME), open(lock, "w", closefd=False) as stream:
            stream.truncate(0)
            stream.write(self.token)
            stream.flush()
            os.fsync(lock)  # NFS shows it to others then, and not before

    def begin_anew(self) -> None:
        """Clear the folder; a run with checkpoints stays, set aside, until the new one has a checkpoint."""
        if complete_checkpoints(self.path):
            former.keep(self.path)
            log.info(
                "%s: the run that stood there is kept until the new one has its first checkpoint, in %s",
                self.target,
                self.path / former.FORMER,
            )
        for entry in self.path.iterdir():
            if entry.name not in (LOCK_NAME, former.FORMER):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def describe(self, config: Config, command: str) -> None:
        """Write what the run is made with: configuration, versions, command (all, if resumed)."""
        _write(self.path / CONFIG_NAME, config.to_yaml())
        versions = {"written_by": WRITTEN_BY, "python": platform.python_version()}
        versions |= {name: version(name) for name in PACKAGES}
        _write(self.path / "versions.json", json.dumps(versions, indent=2) + "\n")
        _append(self.path / COMMAND_NAME, command)

    def record(self, entry: LogEntry) -> None:
        """Append one JSON object to train.jsonl."""
        _append(self.path / LOG_NAME, json.dumps(entry))

    def rewind(self, state: State | None) -> None:
        """The run goes on from a checkpoint, or its beginning: train.jsonl becomes what it was then."""
        (self.path / SUCCESS_NAME).unlink(missing_ok=True)
        entries = [entry for entry in read_log(self.path) if state and _is_before(entry, state)]
        _write(self.path / LOG_NAME, "".join(json.dumps(entry) + "\n" for entry in entries))

    def last_validation(self) -> LogEntry | None:
        """The log's last entry with AUCs; None where somebody has removed the log."""
        return next((entry for entry in reversed(read_log(self.path)) if "auc_ctcvr" in entry), None)

    def finish(self) -> None:
        """Mark the run complete and put it where it belongs."""
        choosing.remove_leftovers(self.path)
        (self.path / SUCCESS_NAME).touch()
        if self.path != self.target:
            publishing.replace(str(self.path), str(self.target))
        self.close()

    def close(self) -> None:
        """Let others write the folder; a process that ends does so too."""
        for lock in self._locks:
            lock.close()


def require_shared(path: Path, token: str) -> None:
    """Stop where this worker does not see the run folder that rank 0 has opened, with this token."""
    end = time.monotonic() + SHARED_SECONDS
    while (found := _signature(path)) != token:
        if time.monotonic() > end:
            what = "nothing" if found is None else "another folder"
            raise InputError(
                f"{path}: expected on {socket.gethostname()} the run folder that rank 0 writes, found "
                f"{what}. All workers write there: give --run a folder that all hosts share by one path."
            )
        time.sleep(SHARED_POLL_SECONDS)


def _signature(path: Path) -> str | None:
    """The token in a run folder's lock, or None where no such file is to be seen."""
    try:
        return (path / LOCK_NAME).read_text()
    except OSError:
        return None


def refuse_foreign(path: Path) -> None:
    """Stop where starting a run would remove files that no run has written."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a run folder or nothing, found a file. Choose another folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / LOCK_NAME).exists():
        raise InputError(
            f"{path}: found a folder that holds something else than a run. Choose another folder."
        )


def is_complete(path: Path) -> bool:
    return (path / SUCCESS_NAME).exists()


def read_log(path: Path) -> list[LogEntry]:
    """The whole lines of a run's train.jsonl, up to what a power cut has left of those after a checkpoint."""
    log = path / LOG_NAME
    lines = log.read_text(errors="replace").split("\n")[:-1] if log.exists() else []
    entries: list[LogEntry] = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def _is_before(entry: LogEntry, state: State) -> bool:
    """Was an entry of the log written before a checkpoint? A validation may follow one of its own step."""
    validated = state.progress.validated
    if validated is not None and "auc_ctcvr" in entry:
        return int(entry["step"]) <= validated
    return int(entry["step"]) <= state.step


def sync_log(path: Path) -> None:
    """Have the log so far on the disk, as a run that resumes from a checkpoint keeps what led to it."""
    if (path / LOG_NAME).exists():
        sync(path / LOG_NAME)
        sync(path)


def read_config(path: Path) -> Config:
    """The configuration of a complete run, or an `InputError`."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"{path}: expected a run folder, found {found}. Make it with esmm.train.")
    if not is_complete(path):
        raise InputError(
            f"{path}: expected a complete run ({SUCCESS_NAME} inside), found none. Let esmm.train finish."
        )
    return Config.load(str(path / CONFIG_NAME), [])


def _refuse_work(path: Path) -> None:
    """Stop where something stands that took long to compute."""
    if is_complete(path):
        raise InputError(
            f"{path}: found a complete run, expected none. Choose another folder or pass --overwrite."
        )
    unfinished = complete_checkpoints(path)
    if unfinished:
        raise InputError(
            f"{path}: found an unfinished run with checkpoint {unfinished[-1].name}, expected none. "
            "Pass --resume to go on with it, --overwrite to start anew, or choose another folder."
        )
    kept = complete_checkpoints(path / former.FORMER)
    if kept:
        raise InputError(
            f"{path}: found an unfinished run with checkpoint {kept[-1].name} in {former.FORMER}, expected "
            "none. A run that was to replace it has not come to a checkpoint. Pass --overwrite to start "
            f"anew, or move what lies in {former.FORMER} one folder up and pass --resume to go on with it."
        )


def _repair(path: Path) -> None:
    """Finish or undo what a kill has interrupted between two renames."""
    choosing.put_back(path)
    former.repair(path)


def _lock(path: Path) -> IO[str]:
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / LOCK_NAME).open("a")  # not "w": it may be somebody else's, with a token in it
    try:
        require_lock(
            lock.fileno(),
            path,
            "another training run is writing there. Wait for it or choose another folder.",
        )
    except InputError:
        lock.close()
        raise
    return lock


def _is_replaced(target: Path) -> bool:
    """Is a run written beside the target? That is complete, or had made place for one that is when killed."""
    return is_complete(target) or (is_complete(_beside(target)) and not complete_checkpoints(target))


def _beside(path: Path) -> Path:
    """Where a run is written that is to replace the one at `path`."""
    whole = path.absolute()
    return whole.with_name(f".{whole.name}.new")


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole: a crash leaves the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with _writing(path):
        partial.write_text(text)
        sync(partial)
        os.replace(partial, path)


def _append(path: Path, line: str) -> None:
    with _writing(path), path.open("a") as stream:
        stream.write(line + "\n")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What keeps a file from being written, such as a full disk, is an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}). Check its folder and the space left there, "
            "then go on with --resume."
        ) from error
