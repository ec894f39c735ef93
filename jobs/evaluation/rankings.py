"""What is ranked, and what the rows of some score ranges come to: numpy in, numpy out.

A ranking's rows are dealt to parts by their range of scores. A part knows how many positives and negatives
lie below each of its ranges before it has sorted anything (`Totals`), so one look at it is enough.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.evaluation import ranking, scores
from jobs.evaluation.blobs import Arrays, Blob, joined
from jobs.evaluation.ranking import Groups, below, sort_rows, tie_groups
from jobs.evaluation.scores import NUM_RANGES
from jobs.evaluation.users import NUM_GROUPS
from schemas.metrics import TASKS

WEIGHTED = (  # by the true p_cvr: an impression counts as p positives and 1 - p negatives
    "cvr_all",
    "best_cvr_all",
    "cvr_unclicked",
    "best_cvr_unclicked",
)
OF_TRUTH = ("best_ctr", "best_cvr", "best_ctcvr", *WEIGHTED)
OF_ITEMS = ("item_ctr", "item_cvr", "item_ctcvr")  # by the item's rates in training
RANKINGS = (*TASKS, *OF_TRUTH, *OF_ITEMS)  # all there can be, in the order of their kinds
WEIGHT_UNIT = 1 << 20  # of such a p

NUM_BINS = 50  # of about equal mass: calibration and ECE
STEPS = 99  # of either rate between points that are kept of a curve
NUM_CELLS = 2 * STEPS + 1

POINTS = ("point_false", "point_true")  # of the summary, where arrays are joined and not added


class Totals(NamedTuple):
    """Of one ranking. counts: per cut [codes, ranges, 2] positives and negatives, the first of them uncut.

    scale: sum of labels / sum of predictions, 1 where there are none.
    """

    counts: tuple[npt.NDArray[np.int64], ...]
    scale: float

    @property
    def classes(self) -> tuple[int, int]:
        """Positives and negatives of all rows."""
        positives, negatives = self.counts[0].sum(axis=(0, 1)).tolist()
        return positives, negatives


class Rows(NamedTuple):
    """Rows of a part in the order of their scores. places [N]: where they stood; weights: `tie_groups`."""

    words: scores.Words
    places: npt.NDArray[np.int64]
    ranges: npt.NDArray[np.int64]
    weights: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

    @property
    def scores(self) -> npt.NDArray[np.uint32]:
        """[N] without the labels."""
        return self.words >> np.uint32(1)


def count_by_range(
    words: scores.Words,
    ranges: npt.NDArray[np.int64],
    codes: npt.NDArray[np.uint8],
    num_codes: int,
    positives: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64]:
    """[codes, ranges, 2] the positives and negatives that rows stand for. positives [N]: of WEIGHT_UNIT each;
    None: the labels."""
    cells = codes * np.int64(NUM_RANGES) + ranges
    size = num_codes * NUM_RANGES
    if positives is None:
        by_label = np.bincount(cells * 2 + 1 - scores.labels_of(words), minlength=2 * size)
        return by_label.reshape(num_codes, NUM_RANGES, 2)
    sums = [np.bincount(cells, weights=part, minlength=size) for part in (positives, WEIGHT_UNIT - positives)]
    return np.stack(sums, axis=-1).astype(np.int64).reshape(num_codes, NUM_RANGES, 2)


def in_order(arrays: Arrays) -> Rows:
    """The rows of a part, sorted."""
    words, places = sort_rows(arrays["word"])
    if "weight" in arrays:
        positives = arrays["weight"][places].astype(np.int64)
        weights = (positives, WEIGHT_UNIT - positives)
    else:
        labels = scores.labels_of(words)
        weights = (labels, 1 - labels)
    return Rows(words, places, scores.ranges_of(words), weights)


def rank(name: str, blobs: list[Blob], totals: Totals) -> tuple[Arrays, Iterator[tuple[int, Arrays]]]:
    """A part's summary, and for tasks per shard of users what its rows add to their sums."""
    arrays = joined(blob.arrays for blob in blobs)
    rows = in_order(arrays)
    uncut = np.zeros(len(rows.words), np.uint8)
    groups = tie_groups(rows.scores, rows.ranges, uncut, rows.weights, below(totals.counts[0]))
    summary = _curve(groups, totals)
    if name not in TASKS:
        if name == "cvr_all":
            summary |= _bins(rows, groups, uncut, totals)
        return summary, iter(())
    of_group = arrays["group"][rows.places]
    summary |= _bins(rows, groups, of_group, totals) | _cells(rows, groups, of_group, totals)
    summary |= _slope(rows, totals)
    for cut in range(1, len(totals.counts)):
        summary |= _slices(cut, rows, arrays[f"slice_{cut}"][rows.places], of_group, totals)
    return summary, _by_shard(blobs, arrays["user"], _influences(rows, groups, totals))


def _curve(groups: Groups, totals: Totals) -> Arrays:
    """The area, average precision by range, and points of the curves: where a threshold at a tie group takes
    in another hundredth of the positives or of the negatives."""
    positives, negatives = totals.classes
    true = positives - groups.positives_below
    false = negatives - groups.negatives_below
    kept = _cell(true, false, totals) != _cell(true - groups.positives, false - groups.negatives, totals)
    return {
        "wins": ranking.wins(groups, 1),
        "precision": ranking.precision_sums(groups, totals.classes, NUM_RANGES),
        "point_false": false[kept],
        "point_true": true[kept],
    }


def _cell(true: npt.NDArray[np.int64], false: npt.NDArray[np.int64], totals: Totals) -> npt.NDArray[np.int64]:
    """Where a point of the curve lies: both rates in steps, which rise together."""
    positives, negatives = totals.classes
    return np.int64(STEPS) * true // max(positives, 1) + np.int64(STEPS) * false // max(negatives, 1)


def _bins(rows: Rows, groups: Groups, of_group: npt.NDArray[np.uint8], totals: Totals) -> Arrays:
    """[bins, groups of users] per bin of about equal mass, from the lowest score on."""
    whole = WEIGHT_UNIT if np.any(rows.weights[0] + rows.weights[1] > 1) else 1
    num_below = (groups.positives_below + groups.negatives_below) // whole
    size = sum(totals.classes) // whole
    bins = groups.per_row(np.int64(NUM_BINS) * num_below // max(size, 1))
    p = scores.units(scores.scores_of(rows.words))
    return _sums("bin", bins, of_group, NUM_BINS, {"positives": rows.weights[0], "predicted": p})


def _cells(rows: Rows, groups: Groups, of_group: npt.NDArray[np.uint8], totals: Totals) -> Arrays:
    """[cells, groups of users] along the curve from the lowest score on, for replicates of PR-AUC."""
    positives, negatives = totals.classes
    cells = _cell(positives - groups.positives_below, negatives - groups.negatives_below, totals)
    return _sums("cell", groups.per_row(cells), of_group, NUM_CELLS, {"positives": rows.weights[0]})


def _sums(
    name: str, places: npt.NDArray[np.int64], of_group: npt.NDArray[np.uint8], num: int, values: Arrays
) -> Arrays:
    """Rows and sums of values per place and group of users, flat."""
    keys = places * NUM_GROUPS + of_group
    size = num * NUM_GROUPS
    sums = {f"{name}_rows": np.bincount(keys, minlength=size)}
    for key, weights in values.items():
        sums[f"{name}_{key}"] = np.bincount(keys, weights=weights, minlength=size).astype(np.int64)
    return sums


def _slope(rows: Rows, totals: Totals) -> Arrays:
    """[ranges] of the scaled log loss: what its derivative by the scale has besides a sum of labels."""
    p = scores.scores_of(rows.words).astype(np.float64)
    scaled = np.minimum(p * totals.scale, scores.FLOAT32_BELOW_ONE)
    parts = np.where(p * totals.scale < 1, rows.weights[1] * p / (1 - scaled), 0)
    return {"slope": np.bincount(rows.ranges, weights=parts, minlength=NUM_RANGES)}


def _influences(rows: Rows, groups: Groups, totals: Totals) -> Arrays:
    """[N] in the rows' first order: what each adds to its user's sums."""
    labels = rows.weights[0]
    p = scores.scores_of(rows.words).astype(np.float64) * totals.scale
    all_positives = totals.counts[0].sum(axis=1)[:, 0]
    values = {
        "below": labels * groups.per_row(groups.doubled_below()),
        "above": rows.weights[1] * groups.per_row(groups.doubled_above(all_positives)),
        "scaled_loss": scores.units(scores.log_losses(p, labels)),
    }
    for name, sorted_values in values.items():
        values[name] = np.empty_like(sorted_values)
        values[name][rows.places] = sorted_values
    return values


def _by_shard(
    blobs: list[Blob], users: npt.NDArray[np.uint32], values: Arrays
) -> Iterator[tuple[int, Arrays]]:
    """Per shard the users that a part has rows of, and the sums of those rows."""
    end = 0
    for blob in blobs:
        begin, end = end, end + len(blob.arrays["word"])
        own = users[begin:end].astype(np.int64)
        rows = np.bincount(own)
        found = np.flatnonzero(rows)
        sums = {
            name: np.bincount(own, weights=part[begin:end]).astype(np.int64)[found]
            for name, part in values.items()
        }
        yield blob.origin, {"user": found.astype(np.uint32), **sums}


def _slices(
    cut: int, rows: Rows, codes: npt.NDArray[np.uint8], of_group: npt.NDArray[np.uint8], totals: Totals
) -> Arrays:
    """Per slice of a cut its wins, and per group of users what intervals are made of."""
    counts = totals.counts[cut]
    order = np.argsort(codes, kind="stable")
    codes, of_group, words = codes[order], of_group[order], rows.words[order]
    labels = scores.labels_of(words)
    groups = tie_groups(words >> np.uint32(1), rows.ranges[order], codes, (labels, 1 - labels), below(counts))
    values = {
        "positives": labels,
        "predicted": scores.units(scores.scores_of(words)),
        "below": labels * groups.per_row(groups.doubled_below()),
        "above": (1 - labels) * groups.per_row(groups.doubled_above(counts.sum(axis=1)[:, 0])),
    }
    sums = _sums(f"slice_{cut}", codes.astype(np.int64), of_group, len(counts), values)
    return {f"slice_{cut}_wins": ranking.wins(groups, len(counts)), **sums}
