"""Replicates of PR-AUC and ECE, whose influences are no sums over users: a Poisson bootstrap.

Users are dealt to `NUM_GROUPS` groups by their hash, and a replicate weighs each group by a Poisson(1) number
that follows from (seed, replicate) alone, so that two evaluations of the same users have the same
weights (Chamandy, Muralidharan, Najmi, Naidu: Estimating Uncertainty for Massive Data Streams, 2012).
"""

import numpy as np
import numpy.typing as npt

from jobs.evaluation.rankings import NUM_CELLS
from jobs.evaluation.users import NUM_GROUPS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_REPLICATES = 200
SEED = 20180601


def weights() -> Floats:
    """[groups, replicates], the same always."""
    draws = np.random.Generator(np.random.Philox(SEED)).poisson(1.0, (NUM_REPLICATES, NUM_GROUPS))
    return draws.T.astype(np.float64)


def of_pr_auc(rows: Ints, positives: Ints) -> Floats:
    """[replicates] average precision from cells of scores. rows, positives: [cells x groups], flat."""
    shape = (NUM_CELLS, NUM_GROUPS)
    drawn = weights()
    all_rows = np.cumsum(rows.reshape(shape) @ drawn, axis=0)
    true = np.cumsum(positives.reshape(shape) @ drawn, axis=0)
    precision = true / np.maximum(all_rows, 1)
    before = np.vstack([np.zeros((1, precision.shape[1])), precision[:-1]])
    steps = np.diff(true, axis=0, prepend=0)
    # Within a cell precision goes from that of the cell before to its own; nothing is before the first.
    before[0] = precision[0]
    return (steps * (precision + before) / 2).sum(axis=0) / np.maximum(true[-1], 1)


def of_ece(rows: Floats, positives: Floats, predicted: Floats) -> Floats:
    """[replicates] ECE over the bins as they are. All three: [bins, groups]."""
    drawn = weights()
    gaps = np.abs((predicted - positives) @ drawn).sum(axis=0)
    return gaps / np.maximum((rows @ drawn).sum(axis=0), 1)
