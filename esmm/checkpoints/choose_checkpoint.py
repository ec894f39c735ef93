"""Which of a run's checkpoints to use: damaged ones are passed over."""

import logging
import shutil
import time
from pathlib import Path

from esmm.checkpoints.checkpoint import (
    FOLDER,
    State,
    complete,
    folder_of,
    latest,
    read_state,
    sha256_of,
    step_of,
)
from esmm.workers.distributed import AgreedError, World
from schemas.errors import InputError

log = logging.getLogger(__name__)


def newest_good(run: Path, world: World) -> tuple[Path, State]:
    """The newest checkpoint whose files are what they were when written; one line says what was passed over.

    `InputError` where a run has none. All ranks call it together: they share the reading.
    """
    candidates = world.on_first(lambda: [latest(run), *reversed(complete(run)[:-1])])
    damage: list[str] = []
    for candidate in candidates:
        try:
            state = checked(candidate, world)
        except AgreedError as error:
            damage.append(str(error))
            continue
        if damage and world.is_first:
            log.warning("%s Using %s instead.", damage[0], candidate)
        return candidate, state
    raise AgreedError(damage[0])


def checked(checkpoint: Path, world: World) -> State:
    """The description of a checkpoint whose files fit their checksums, or an `InputError` on all ranks."""
    state = world.together(lambda: read_state(checkpoint))
    world.together(lambda: _check_sums(checkpoint, state, world))
    return state


def _check_sums(checkpoint: Path, state: State, world: World) -> None:
    """The ranks share the reading."""
    for name, expected in list(state.sha256.items())[world.rank :: world.size]:
        path = checkpoint / name
        if not path.is_file():
            raise InputError(f"{path}: file not found, but state.json names it. Restore it or train again.")
        if sha256_of(path).hex() != expected:
            raise InputError(
                f"{path}: damaged, its SHA-256 is not that in state.json. Restore it or train again."
            )


def for_predictions(run: Path, world: World) -> tuple[Path, State]:
    """The checkpoint of the best validation where early stopping was on, else the newest good one."""
    newest, state = newest_good(run, world)
    best = state.progress.best_step
    if not state.config.train.early_stopping_patience or best in (None, state.step):
        return newest, state
    return folder_of(run, best), checked(folder_of(run, best), world)


def named(run: Path, name: str, world: World) -> tuple[Path, State]:
    """The checkpoint of a run with this name, or an `InputError`."""

    def find() -> Path:
        names = [folder.name for folder in complete(run)]
        if name not in names:
            raise InputError(f"--checkpoint {name}: expected one of {', '.join(names) or 'none'} in {run}.")
        return run / FOLDER / name

    path = world.together(find)
    return path, checked(path, world)


def set_newer_aside(run: Path, step: int) -> None:
    """Hide checkpoints of later steps than the one a run goes on from: damaged ones."""
    for folder in complete(run):
        if step_of(folder) > step:
            folder.rename(folder.with_name(f".{folder.name}.aside-{time.time_ns()}"))


def remove_leftovers(run: Path) -> None:
    """Remove what is half-written or was set aside."""
    for folder in (run / FOLDER).glob(".step-*"):
        shutil.rmtree(folder)
