"""What a run replaces that begins anew in the same folder: it stays until the new run has a checkpoint.

RUN/.former/            what stood in the run folder, whole
RUN/.former.partial/    what has been moved of it when that was interrupted
"""

import shutil
from pathlib import Path

from esmm.checkpoints.files import complete_checkpoints, is_there

FORMER = ".former"
PARTIAL = ".former.partial"


def keep(run: Path) -> None:
    """Move what a run has left into FORMER. `repair` puts back what a kill has left half moved."""
    partial = run / PARTIAL
    partial.mkdir()
    for entry in run.iterdir():
        if not entry.name.startswith("."):
            entry.rename(partial / entry.name)
    partial.rename(run / FORMER)


def repair(run: Path) -> None:
    """Undo a `keep` and finish a `forget` that were interrupted: a run with checkpoints has no FORMER."""
    partial = run / PARTIAL
    if is_there(partial):
        for entry in partial.iterdir():
            entry.rename(run / entry.name)
        partial.rmdir()
    if complete_checkpoints(run):
        forget(run)


def forget(run: Path) -> None:
    """The new run has a checkpoint: remove what it replaces."""
    if is_there(run / FORMER):
        shutil.rmtree(run / FORMER)
