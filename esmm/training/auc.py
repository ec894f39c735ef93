"""Exact area under the ROC curve, ties included."""

import numpy as np
import numpy.typing as npt


def auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.generic]) -> float | None:
    """Probability that a positive scores above a negative, a tie counting half; None where undefined.

    scores [N], labels [N] of 0 and 1. This is the Mann-Whitney statistic, summed in whole numbers over the
    distinct scores: each positive beats the negatives below it and draws with those at its score.
    """
    _, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, weights=labels != 0).astype(np.int64)
    negative = np.bincount(group).astype(np.int64) - positive
    pairs = int(positive.sum()) * int(negative.sum())
    if pairs == 0:
        return None
    below = np.cumsum(negative) - negative
    return int((positive * (2 * below + negative)).sum()) / (2 * pairs)
