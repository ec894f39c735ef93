"""A shard of users: their sums, their GAUC, and their impressions on the way to the rankings.

Numbers in, numbers out; `Shard` is all impressions of some users, user by user.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.evaluation import scores
from jobs.evaluation.blobs import Arrays

Ints = npt.NDArray[np.int64]

NUM_GROUPS = 256  # of users, by hash: what slices and the bootstrap count as clusters


class Judged(NamedTuple):
    """The impressions that a task is judged on, user by user."""

    words: scores.Words  # scores with labels
    rows: npt.NDArray[np.bool_] | None  # which of the shard's; None: all
    bounds: Ints  # [users + 1] where the impressions of each begin

    def take(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of values per impression of the shard, those that are judged."""
        return values if self.rows is None else values[self.rows]


class Shard(NamedTuple):
    """columns: per impression; users: hashes, rising; bounds [users + 1]: where the rows of each begin."""

    columns: Arrays
    users: npt.NDArray[np.uint64]
    bounds: Ints

    @property
    def sizes(self) -> Ints:
        """[users] impressions of each."""
        return np.diff(self.bounds)

    @property
    def groups(self) -> npt.NDArray[np.uint8]:
        """[users] the group of each, from other bits of the hash than the shard's remainder."""
        return ((self.users >> np.uint64(40)) % np.uint64(NUM_GROUPS)).astype(np.uint8)

    def per_row(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values of users for their impressions."""
        return np.repeat(values, self.sizes)

    def judged(self, task: str) -> Judged:
        """The impressions of a task: all, for CVR the clicked ones."""
        click = self.columns["label"] & 1
        conversion = self.columns["label"] >> 1
        if task != "cvr":
            labels = click if task == "ctr" else conversion
            return Judged(scores.to_words(self.columns[f"p_{task}"], labels), None, self.bounds)
        rows = click == 1
        before = np.concatenate([[0], np.cumsum(rows)])
        words = scores.to_words(self.columns["p_cvr"][rows], conversion[rows])
        return Judged(words, rows, before[self.bounds])


def gather(columns: Arrays) -> Shard:
    """Put impressions in the order of their users. Impressions of a user mostly come in runs already."""
    hashes = columns["user"]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    sizes = np.diff(starts, append=len(hashes))
    run_users = hashes[starts]
    order = np.argsort(run_users, kind="stable")
    sizes_in_order = sizes[order]
    ends = np.cumsum(sizes_in_order)
    rows = np.arange(len(hashes)) + np.repeat(starts[order] - (ends - sizes_in_order), sizes_in_order)
    users, first = np.unique(run_users[order], return_index=True)
    bounds = np.concatenate([(ends - sizes_in_order)[first], [len(hashes)]])
    return Shard({name: values[rows] for name, values in columns.items() if name != "user"}, users, bounds)


def sums_of(judged: Judged) -> Arrays:
    """[users] per name; but for counts in units of `scores.UNIT`.

    wins: within the user, twice the pairs in the right order plus the tied ones.
    """
    labels = scores.labels_of(judged.words)
    p = scores.scores_of(judged.words).astype(np.float64)
    return {
        "rows": np.diff(judged.bounds),
        "positives": _by_user(labels, judged.bounds),
        "predicted": _by_user(scores.units(p), judged.bounds),
        "log_loss": _by_user(scores.units(scores.log_losses(p, labels)), judged.bounds),
        "squares": _by_user(scores.units((p - labels) ** 2), judged.bounds),
        "wins": wins_within(judged),
    }


def _by_user(values: Ints, bounds: Ints) -> Ints:
    before = np.concatenate([[0], np.cumsum(values)])
    return before[bounds[1:]] - before[bounds[:-1]]


def wins_within(judged: Judged) -> Ints:
    """[users] twice the pairs of a user's positive above a negative, plus the tied ones."""
    labels = scores.labels_of(judged.words)
    sizes = np.diff(judged.bounds)
    positives = _by_user(labels, judged.bounds)
    with_both = (positives > 0) & (positives < sizes)
    rows = np.repeat(with_both, sizes)
    users = np.repeat(np.arange(len(sizes)), sizes)[rows]
    keys = (users.astype(np.uint64) << np.uint64(32)) | judged.words[rows].astype(np.uint64)
    keys.sort()
    won = _wins_in_order(keys)
    return np.bincount(users, weights=won, minlength=len(sizes)).astype(np.int64)


def _wins_in_order(keys: npt.NDArray[np.uint64]) -> Ints:
    """[N] what each row adds to its user's wins; keys: user, score, label, sorted. Users stay in place."""
    labels = (keys & np.uint64(1)).astype(np.int64)
    negatives = np.cumsum(1 - labels)
    first_of_user = _first_of(keys >> np.uint64(32))
    first_of_tie = _first_of(keys >> np.uint64(1))
    before = negatives - (1 - labels)
    below = before[first_of_tie] - before[first_of_user]
    # Negatives of a tie come before its positives, so those up to a positive are all of the tie.
    tied = negatives - before[first_of_tie]
    return labels * (2 * below + tied)


def _first_of(values: npt.NDArray[np.uint64]) -> Ints:
    """[N] the row at which the run of equal values begins that a row belongs to."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
    return np.repeat(starts, np.diff(starts, append=len(values)))
