"""Going on with a run: which checkpoint, and may it be continued with these options and these samples?"""

import logging
from dataclasses import replace
from pathlib import Path

from esmm.checkpoints import choosing, run_folder
from esmm.checkpoints.files import checkpoint_folder, complete_checkpoints, is_there
from esmm.checkpoints.state import State, UnfitError
from esmm.checkpoints.writing import Origin
from esmm.config import Config, flatten
from esmm.workers.world import World
from schemas import manifest

log = logging.getLogger(__name__)

# What the stored numbers and the position in the data mean. All other options may change.
FIXED = ("model.", "loader.shuffle_window", "train.seed", "optimizer.sparse.name")


def find(run: Path, origin: Origin, world: World) -> tuple[Path, State] | None:
    """The checkpoint to go on with, or None where the run has none; says either in one line.

    `DamagedError` where the checkpoints are all damaged, `UnfitError` where they are of another model,
    other samples or another format, `InputError` where they cannot be read.
    """
    if not world.on_rank_zero(lambda: complete_checkpoints(run)):
        log.info("%s: no checkpoint to resume from, starting from the beginning", run)
        return None
    path, state = choosing.newest_good(run, world)
    with world.agree():
        changed = compare(path, state, origin)
    world.on_rank_zero(lambda: choosing.set_newer_aside(run, state.step))
    told = f", with other options: {'; '.join(changed)}" if changed else ""
    log.info("resuming from %s%s", path, told)
    return path, _with_kept_best(run, origin.config, state, world)


def is_complete(run: Path, config: Config, state: State, world: World) -> bool:
    """Is there nothing to go on with?"""
    done = state.progress.is_done(config.train, state.position)
    return done and world.on_rank_zero(lambda: run_folder.is_complete(run))


def _with_kept_best(run: Path, config: Config, state: State, world: World) -> State:
    """Early stopping chooses among checkpoints: one that is not there, as early stopping was off, is none.

    The state to go on with, in which it then counts from here.
    """
    if not config.train.early_stopping_patience:
        return state
    best = state.progress.best_step
    was_on = state.config.train.early_stopping_patience > 0
    kept = world.on_rank_zero(lambda: best is None or is_there(checkpoint_folder(run, best)))
    if was_on and kept:
        return state
    log.info("early stopping counts from step %d: no checkpoint was kept for it before", state.step)
    return replace(state, progress=state.progress.without_best())


def compare(path: Path, state: State, origin: Origin) -> list[str]:
    """Options that differ and may; an `UnfitError` names those that must not."""
    changed = manifest.changes(state.schema, origin.schema)
    if changed:
        raise UnfitError(
            f"{path}: a checkpoint of samples with another schema ({'; '.join(changed)}). "
            "Start a new run with --warm-start to take over what fits."
        )
    options = differences(state.config, origin.config)
    fixed = [text for name, text in options.items() if name.startswith(FIXED)]
    if state.samples != origin.samples:
        fixed.append("--train: other files than those the run was trained on")
    if fixed:
        raise UnfitError(
            f"{path}: cannot be continued with other {'; '.join(fixed)}. Give what the run was started "
            "with, or start a new run, with --warm-start to take over what fits."
        )
    return list(options.values())


def differences(old: Config, new: Config) -> dict[str, str]:
    """Options whose values differ, by name, each as `name: old -> new`."""
    before = flatten(old.model_dump())
    after = flatten(new.model_dump())
    return {
        name: f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }
