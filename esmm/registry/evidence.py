"""What a decision is made from: the evaluation of a candidate, what it was compared with, its checkpoint."""

import hashlib
import json
import posixpath
from pathlib import Path
from typing import NamedTuple

from cli.errors import InputError
from esmm.checkpoints.files import FOLDER, STATE_FILE, checkpoint_folder, sha256_of
from esmm.registry.store import Version
from schemas.metrics import Metrics, read_metrics
from storage.filesystems import filesystem

NOT_CHANGED = "Nothing was changed."


class Checkpoint(NamedTuple):
    """digest: SHA-256 of its state.json, which has those of all its other files."""

    name: str
    digest: str


def read_evaluation(path: str, run: Path) -> Metrics:
    """The metrics of a run, or an `InputError` where they are of another one."""
    metrics = read_metrics(path)
    if not _is_of(metrics, run):
        raise InputError(
            f"{path}: expected an evaluation of the run {run}, found one of {metrics['source']['run']}. "
            f"{NOT_CHANGED}"
        )
    return metrics


def digest_of(metrics: Metrics) -> str:
    """SHA-256 of an evaluation, however its file is written."""
    return hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()


def checkpoint_of(metrics: Metrics, run: Path) -> Checkpoint:
    """The checkpoint that was evaluated; an `InputError` where the run folder does not have it."""
    step = metrics["source"]["step"]
    if step is None:
        raise InputError(f"{run}: expected metrics that name the step of a checkpoint, found none.")
    folder = checkpoint_folder(run, step)
    if not (folder / STATE_FILE).is_file():
        raise InputError(
            f"{folder}: expected the checkpoint that was evaluated, found none. Was the run trained again? "
            "Predict and evaluate it anew."
        )
    return Checkpoint(folder.name, sha256_of(folder / STATE_FILE).hex())


def require_intact(version: Version, ways_out: str) -> None:
    """An `InputError` where a version's checkpoint is not there, or not what was registered."""
    path = version.run / FOLDER / version.tags["checkpoint"] / STATE_FILE
    if not path.is_file():
        raise InputError(
            f"{path}: expected the checkpoint of version {version.number}, found none. {ways_out}"
        )
    if sha256_of(path).hex() != version.tags["checkpoint_digest"]:
        raise InputError(
            f"{path}: expected the checkpoint of version {version.number} as it was registered, found "
            f"another one. {ways_out}"
        )


def require_compared(path: str, metrics: Metrics, champion: Version) -> None:
    """An `InputError` where an evaluation was not compared with one of the champion."""
    again = "Run jobs.evaluate with --against and the champion's evaluation of this day. " + NOT_CHANGED
    if "against" not in metrics:
        raise InputError(
            f"{path}: expected a comparison with version {champion.number}, the champion, found none. {again}"
        )
    other = metrics["against"]["run"]
    fs, target = filesystem(other)
    found = read_metrics(posixpath.join(other, "metrics.json") if fs.isdir(target) else other)
    if not _is_of(found, champion.run):
        raise InputError(
            f"{path}: expected a comparison with the run {champion.run} of version {champion.number}, the "
            f"champion, found one with {found['source']['run']}. {again}"
        )


def _is_of(metrics: Metrics, run: Path) -> bool:
    found = metrics["source"]["run"]
    return found is not None and Path(found).resolve() == run.resolve()
