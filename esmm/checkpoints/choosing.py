"""Which of a run's checkpoints to use: damaged ones are passed over."""

import logging
import shutil
import time
from pathlib import Path

import torch

from cli.errors import InputError
from esmm.checkpoints.files import (
    FOLDER,
    STATE_FILE,
    checkpoint_folder,
    complete_checkpoints,
    is_there,
    newest_checkpoint,
    reading,
    sha256_of,
    step_of,
)
from esmm.checkpoints.state import DamagedError, State, read_state
from esmm.workers.world import AgreedError, World

log = logging.getLogger(__name__)
REPLACED = ".replaced"  # ends the hidden name of a checkpoint that makes place for one of the same step


def newest_good(run: Path, world: World) -> tuple[Path, State]:
    """The newest checkpoint whose files are what they were when written; one line says what was passed over.

    `DamagedError` where a run has only others, `InputError` where it has none or one cannot be read. All
    ranks call it together: they share the reading.
    """
    candidates = world.on_rank_zero(
        lambda: [newest_checkpoint(run), *reversed(complete_checkpoints(run)[:-1])]
    )
    damage: list[str] = []
    for candidate in candidates:
        try:
            state = checked(candidate, world)
        except DamagedError as error:
            damage.append(str(error))
            continue
        if damage and world.is_rank_zero:
            log.warning("%s Using %s instead.", damage[0], candidate)
        return candidate, state
    raise DamagedError(damage[0])


def checked(checkpoint: Path, world: World) -> State:
    """The description of a checkpoint whose files fit their checksums.

    On all ranks a `DamagedError` where they do not, an `InputError` where they cannot be read.
    """
    _require_files(checkpoint, [STATE_FILE], world)
    with world.agree():
        state = read_state(checkpoint)
    _require_files(checkpoint, list(state.sha256), world)
    with world.agree():
        _check_sums(checkpoint, state, world)
    return state


def _require_files(checkpoint: Path, names: list[str], world: World) -> None:
    """A file that nobody finds is damage; one that only some miss is not: their machine lacks the folder."""
    with world.agree():
        found = torch.tensor([int(is_there(checkpoint / name)) for name in names])
    world.all_reduce_([found], "files")
    for name, count in zip(names, found.tolist(), strict=True):
        if count == 0:
            raise DamagedError(f"{checkpoint / name}: file not found. Restore it or train again.")
        if count < world.size:
            raise AgreedError(
                f"{checkpoint / name}: found by {count} of {world.size} workers only. Nothing was changed. "
                "Check that every machine has the run folder at this path, then try again."
            )


def _check_sums(checkpoint: Path, state: State, world: World) -> None:
    """The ranks share the reading."""
    for name, expected in list(state.sha256.items())[world.rank :: world.size]:
        path = checkpoint / name
        with reading(path):
            found = sha256_of(path).hex()
        if found != expected:
            raise DamagedError(
                f"{path}: damaged, its SHA-256 is not that in state.json. Restore it or train again."
            )


def for_predictions(run: Path, world: World) -> tuple[Path, State]:
    """The checkpoint of the best validation where early stopping was on, else the newest good one.

    `InputError` where the best one is damaged: another is worse, and to take it is the user's decision.
    """
    newest, state = newest_good(run, world)
    best = state.progress.best_step
    if not state.config.train.early_stopping_patience or best in (None, state.step):
        return newest, state
    try:
        return checkpoint_folder(run, best), checked(checkpoint_folder(run, best), world)
    except DamagedError as error:
        raise AgreedError(
            f"{error} It is the checkpoint of the best validation, which early stopping chooses; the newest "
            f"good one is --checkpoint {newest.name}."
        ) from error


def named(run: Path, name: str, world: World) -> tuple[Path, State]:
    """The checkpoint of a run with this name, or an `InputError`."""
    with world.agree():
        names = [folder.name for folder in complete_checkpoints(run)]
        if name not in names:
            raise InputError(f"--checkpoint {name}: expected one of {', '.join(names) or 'none'} in {run}.")
    path = run / FOLDER / name
    return path, checked(path, world)


def set_newer_aside(run: Path, step: int) -> None:
    """Hide checkpoints of later steps than the one a run goes on from: damaged ones."""
    for folder in complete_checkpoints(run):
        if step_of(folder) > step:
            folder.rename(folder.with_name(f".{folder.name}.aside-{time.time_ns()}"))


def put_back(run: Path) -> None:
    """A kill between the two renames of `writing.save` has left a whole checkpoint without its name."""
    for replaced in (run / FOLDER).glob(f".step-*{REPLACED}"):
        final = replaced.with_name(replaced.name.removeprefix(".").removesuffix(REPLACED))
        shutil.rmtree(replaced) if final.exists() else replaced.rename(final)


def remove_leftovers(run: Path) -> None:
    """Remove what is half-written or was set aside."""
    for folder in (run / FOLDER).glob(".step-*"):
        shutil.rmtree(folder)
