"""What the drawing kernels read, fill and keep at hand: plain arrays, so that they compile."""

from typing import NamedTuple

import numpy as np

from jobs.demo_logs.laws import Array
from jobs.demo_logs.world import PlantedWorld

MAX_FEATURES = 2706  # of a common record
MAX_ROW_FEATURES = 50  # of a skeleton row


class History(NamedTuple):
    """Scratch space for one context's lists; `mark` finds an id's place in its list."""

    ids: Array  # int64 [4, MAX_FEATURES]
    hits: Array  # int64 [4, MAX_FEATURES]: how often, 1..MAX_HITS
    length: Array  # int64 [4]
    limit: Array  # int64 [4]: length drawn for each list
    mark: Array  # int64 [sum of sizes]: place in the list + 1, or 0
    mark_start: Array  # int64 [4]
    visited: Array  # int64 [MAX_FEATURES]: items
    num_visited: Array  # int64 [1]


class Contexts(NamedTuple):
    """What a plan says of its contexts."""

    key: np.uint64
    list_scale: float
    user: Array  # int64 [N]
    activity: Array  # float64 [N]
    has_user_id: Array  # bool [N]


class Lines(NamedTuple):
    """Drawn lines: line i holds the features start[i] : start[i + 1], in their order in the file."""

    start: Array  # int64 [lines + 1]
    field: Array  # int64 [features]: place in FIELDS
    id: Array  # int64 [features]
    value: Array  # int64 [features]: value code
    context: Array  # uint64 [lines]: common_feature_index
    labels: Array  # float64 [lines, 4]: CTR and CVR logits without intercepts, click, conversion


def new_lines(lines: int, features: int) -> Lines:
    """Room for so many lines of at most `features` features."""
    field, ids, value = (np.empty(lines * features, dtype=np.int64) for _ in range(3))
    start = np.zeros(lines + 1, dtype=np.int64)
    context = np.zeros(lines, dtype=np.uint64)
    return Lines(start, field, ids, value, context, np.zeros((lines, 4)))


def new_history(world: PlantedWorld) -> History:
    """Empty scratch space for a world."""
    shape = (4, MAX_FEATURES)
    return History(
        ids=np.zeros(shape, dtype=np.int64),
        hits=np.zeros(shape, dtype=np.int64),
        length=np.zeros(4, dtype=np.int64),
        limit=np.zeros(4, dtype=np.int64),
        mark=np.zeros(int(world.sizes.sum()), dtype=np.int64),
        mark_start=np.concatenate(([0], np.cumsum(world.sizes)[:-1])).astype(np.int64),
        visited=np.zeros(MAX_FEATURES, dtype=np.int64),
        num_visited=np.zeros(1, dtype=np.int64),
    )
