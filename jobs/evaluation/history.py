"""What training samples know of the users and items that are judged. Numbers in, numbers out.

Per impression, how often its user and its item were seen there (0 for new ones), to cut by, and the item's
rates there, as scores to compare with.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.evaluation.blobs import Arrays

Ints = npt.NDArray[np.int64]

SEEN_USER, SEEN_ITEM = "train_user", "train_item"  # columns of impressions
RATES = {  # what is counted of what
    "ctr": ("clicks", "impressions"),
    "cvr": ("conversions", "clicks"),
    "ctcvr": ("conversions", "impressions"),
}


class Items(NamedTuple):
    """column: of predictions, with buckets; buckets [K]: rising; seen [K]: impressions of each in training.

    rates: per task [K + 1], the last that of an item which was not seen.
    """

    column: str
    buckets: npt.NDArray[np.int64]
    seen: npt.NDArray[np.int32]
    rates: dict[str, npt.NDArray[np.float32]]

    def columns(self, rows: pa.Table) -> Arrays:
        """[N] each: how often the item was seen, and its rates."""
        wanted = rows[self.column].to_numpy()
        places = np.searchsorted(self.buckets, wanted)
        inside = np.minimum(places, max(len(self.buckets) - 1, 0))
        known = self.buckets[inside] == wanted if len(self.buckets) else np.zeros(len(wanted), bool)
        places = np.where(known, places, len(self.buckets))
        seen = np.append(self.seen, np.int32(0))[places]
        return {SEEN_ITEM: seen} | {f"item_p_{task}": rates[places] for task, rates in self.rates.items()}


def rated(column: str, counts: Arrays) -> Items:
    """counts: bucket, impressions, clicks and conversions [M], a bucket perhaps several times."""
    items = added_by("bucket", counts)
    rates = {task: smoothed(items[positives], items[rows]) for task, (positives, rows) in RATES.items()}
    return Items(column, items["bucket"].astype(np.int64), items["impressions"].astype(np.int32), rates)


def added_by(key: str, counts: Arrays) -> Arrays:
    """Every value of a key once, rising, with the sums of all else."""
    found, places = np.unique(counts[key], return_inverse=True)
    sums = {
        name: np.bincount(places, values, len(found)).astype(np.int64)
        for name, values in counts.items()
        if name != key
    }
    return {key: found, **sums}


def smoothed(positives: Ints, rows: Ints) -> npt.NDArray[np.float32]:
    """[K + 1] rates of items [K], and last of a new one: as if each had one positive more at the mean rate.

    (positives + 1) / (rows + 1 / mean): the mean of a Beta(1, 1 / mean - 1) prior's posterior.
    """
    if not positives.sum():
        return np.zeros(len(rows) + 1, np.float32)
    more = rows.sum() / positives.sum()
    return ((np.append(positives, 0) + 1) / (np.append(rows, 0) + more)).astype(np.float32)


def seen_before(users: npt.NDArray[np.uint64], before: Arrays) -> Ints:
    """[users] impressions of each in training. before: that of their shard, empty where it has none."""
    if not before:
        return np.zeros(len(users), np.int64)
    known = added_by("user", before)
    places = np.minimum(np.searchsorted(known["user"], users), len(known["user"]) - 1)
    return np.where(known["user"][places] == users, known["impressions"][places], 0)
