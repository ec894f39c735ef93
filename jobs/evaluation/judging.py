"""The figures of every task, from what Spark found or an evaluation has kept. No files, no Spark."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from jobs.evaluation import replicates, scores
from jobs.evaluation.blobs import Arrays
from jobs.evaluation.cuts import Cut
from jobs.evaluation.figures import Figure, TaskSums, figures_of
from jobs.evaluation.gram import WIDTH
from jobs.evaluation.rankings import NUM_BINS, RANKINGS, Totals
from jobs.evaluation.users import NUM_GROUPS
from schemas.metrics import TASKS

Floats = npt.NDArray[np.float64]


class Judged(NamedTuple):
    """The figures of a task. replicates: of those that have no weights."""

    sums: TaskSums
    replicates: dict[str, Floats]
    figures: dict[str, Figure]
    totals: Totals
    summary: Arrays  # of its ranking; nothing of another evaluation


OF_RANKING = ("wins", "precision", "slope")


class Stored(TypedDict):
    """What an evaluation keeps of a task beside the users' sums. of_ranking: by `OF_RANKING`."""

    of_ranking: dict[str, float]
    ece: float | None
    replicates: dict[str, list[float]]


def totals_of(found: Arrays, cuts: Sequence[Cut]) -> dict[str, Totals]:
    """What the rankings there are have to know, from the sums over shards."""
    totals = {}
    for name in (name for name in RANKINGS if f"{name}_0" in found):
        own = cuts if name in TASKS else ()
        shapes = [(1, scores.NUM_RANGES, 2), *((len(cut.labels), scores.NUM_RANGES, 2) for cut in own)]
        counts = tuple(found[f"{name}_{number}"].reshape(shape) for number, shape in enumerate(shapes))
        predicted = int(found[f"{name}_predicted"][0]) / scores.UNIT if name in TASKS else 0
        positives = int(counts[0][..., 0].sum())
        totals[name] = Totals(counts, positives / predicted if predicted and positives else 1.0)
    return totals


def judge(task: str, totals: Totals, summary: Arrays, sums: Floats, gram: Floats, users: int) -> Judged:
    """All figures of a task. sums [tasks x WIDTH], gram [tasks x WIDTH, same]: over all users."""
    of_ranking = {name: float(summary[name].sum()) if summary else 0.0 for name in OF_RANKING}
    known = _task_sums(task, totals.classes, of_ranking, sums, gram, users)
    if not known.rows:
        return _judged(known, None, {}, totals, summary)
    rows, labels, predicted = summary_bins(summary)
    ece = float(np.abs(predicted.sum(1) - labels.sum(1)).sum() / known.rows)
    drawn = {
        "ece": replicates.of_ece(rows, labels, predicted),
        "pr_auc": replicates.of_pr_auc(summary["cell_rows"], summary["cell_positives"]),
    }
    return _judged(known, ece, drawn, totals, summary)


def judge_stored(task: str, totals: Totals, stored: Stored, sums: Floats, gram: Floats, users: int) -> Judged:
    """The same of another evaluation of the same impressions, from what it has stored."""
    drawn = {name: np.array(values) for name, values in stored["replicates"].items()}
    known = _task_sums(task, totals.classes, stored["of_ranking"], sums, gram, users)
    return _judged(known, stored["ece"], drawn, totals, {})


def stored_of(task: Judged) -> Stored:
    """What `judge_stored` needs."""
    return Stored(
        of_ranking={name: getattr(task.sums, name) for name in OF_RANKING},
        ece=task.figures["ece"].value,
        replicates={name: drawn.tolist() for name, drawn in task.replicates.items()},
    )


def _task_sums(
    task: str, classes: tuple[int, int], of_ranking: dict[str, float], sums: Floats, gram: Floats, users: int
) -> TaskSums:
    own = slice(TASKS.index(task) * WIDTH, (TASKS.index(task) + 1) * WIDTH)
    return TaskSums(
        *classes,
        users=users,
        wins=of_ranking["wins"],
        precision=of_ranking["precision"],
        slope=of_ranking["slope"],
        sums=sums[own],
        gram=gram[own, own],
    )


def _judged(
    sums: TaskSums, ece: float | None, drawn: dict[str, Floats], totals: Totals, summary: Arrays
) -> Judged:
    figures = figures_of(sums)
    figures["ece"] = Figure(ece, reason=figures["log_loss"].reason)
    return Judged(sums, drawn, figures, totals, summary)


def summary_bins(summary: Arrays) -> tuple[Floats, Floats, Floats]:
    """Rows, positives and the sum of predictions, [bins, groups]."""
    shape = (NUM_BINS, NUM_GROUPS)
    rows, positives, predicted = (
        summary[f"bin_{name}"].reshape(shape).astype(np.float64)
        for name in ("rows", "positives", "predicted")
    )
    return rows, positives, predicted / scores.UNIT
