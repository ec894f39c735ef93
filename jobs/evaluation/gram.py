"""What the intervals of all metrics are made of: products of users' sums, added over users.

Every metric's influence of a user is a linear combination of the user's sums, with the same weights for all
users. So the variance of any of them, and of any difference of two evaluations, is a quadratic form of one
small matrix: sum over users of s s^T (the delta method with users as clusters).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from jobs.evaluation import scores
from jobs.evaluation.blobs import Arrays
from schemas.metrics import TASKS

# Of a user and a task, as floats: counts, sums, and how the user's rows stand among all.
PARTS = (
    "rows",
    "positives",
    "predicted",
    "log_loss",
    "squares",
    "scaled_loss",
    "below",  # sum over positives of the share of negatives below
    "above",  # sum over negatives of the share of positives above
    "both",  # 1 where the user has both classes, else 0; and the same times
    "both_auc",  # the AUC within the user,
    "both_rows",  # impressions,
    "both_rows_auc",  # impressions and AUC
)
WIDTH = len(PARTS)

STORED = ("rows", "positives", "predicted", "log_loss", "squares", "wins", "below", "above", "scaled_loss")
COLUMNS = tuple(f"{task}_{name}" for task in TASKS for name in STORED)

Floats = npt.NDArray[np.float64]


def matrix_of(sums: Arrays, classes: Mapping[str, tuple[int, int]]) -> Floats:
    """[users, tasks x WIDTH] of the stored sums. classes: positives and negatives of each task."""
    parts = [_task(sums, task, *classes[task]) for task in TASKS]
    return np.concatenate(parts, axis=1)


def _task(sums: Arrays, task: str, positives: int, negatives: int) -> Floats:
    own = {name: sums[f"{task}_{name}"].astype(np.float64) for name in STORED}
    pairs = own["positives"] * (own["rows"] - own["positives"])
    both = (pairs > 0).astype(np.float64)
    auc = own["wins"] / np.maximum(2 * pairs, 1)
    parts = {
        "rows": own["rows"],
        "positives": own["positives"],
        "predicted": own["predicted"] / scores.UNIT,
        "log_loss": own["log_loss"] / scores.UNIT,
        "squares": own["squares"] / scores.UNIT,
        "scaled_loss": own["scaled_loss"] / scores.UNIT,
        "below": own["below"] / max(2 * negatives, 1),
        "above": own["above"] / max(2 * positives, 1),
        "both": both,
        "both_auc": both * auc,
        "both_rows": both * own["rows"],
        "both_rows_auc": both * own["rows"] * auc,
    }
    return np.stack([parts[name] for name in PARTS], axis=1)
