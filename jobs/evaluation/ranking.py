"""Where each row of a range stands among all rows: numpy in, numpy out. Rows are sorted once, for all slices.

A tie group is the rows of one score. With the numbers of positives and negatives below and at a score, the
AUC and each row's part in it follow (Mann-Whitney; Obuchowski, Biometrics 53 (1997), 567-578):
AUC = sum over positives of (negatives below + half the tied ones) / (positives x negatives).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Groups(NamedTuple):
    """Tie groups in the order of (code, score). Row numbers and counts are [G] or, where said, [N]."""

    starts: Ints  # the first row of each
    sizes: Ints
    codes: Ints
    ranges: Ints
    positives_below: Ints
    negatives_below: Ints
    positives: Ints
    negatives: Ints

    def doubled_below(self) -> Ints:
        """[G] 2 x negatives below + those tied: what a positive of the group wins."""
        return 2 * self.negatives_below + self.negatives

    def doubled_above(self, positives: Ints) -> Ints:
        """[G] 2 x positives above + those tied: what its negatives lose. positives [codes]: all."""
        return 2 * (positives[self.codes] - self.positives_below) - self.positives

    def per_row(self, values: Ints) -> Ints:
        """[N] of [G]."""
        return np.repeat(values, self.sizes)


def below(counts: Ints) -> Ints:
    """[codes, ranges, 2] how many positives and negatives lie in lower ranges. counts: how many in each."""
    return np.cumsum(counts, axis=1) - counts


def sort_rows(words: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], Ints]:
    """The words in order, and which row each was: one sort of 64-bit numbers, several times faster than
    an argsort. At most 2^32 rows."""
    keys = (words.astype(np.uint64) << np.uint64(32)) | np.arange(len(words), dtype=np.uint64)
    keys.sort()
    return (keys >> np.uint64(32)).astype(np.uint32), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def tie_groups(
    scores: npt.NDArray[np.uint32],
    ranges: Ints,
    codes: npt.NDArray[np.uint8],
    weights: tuple[Ints, Ints],
    lower: Ints,
) -> Groups:
    """The tie groups of rows that are sorted by (code, score).

    scores, ranges, codes [N]; weights: how many positives and how many negatives each row stands for [N];
    lower [codes, ranges, 2]: `below` of all rows, of which these are whole ranges.
    """
    changes = np.flatnonzero((scores[1:] != scores[:-1]) | (codes[1:] != codes[:-1])) + 1
    starts = np.concatenate([[0], changes]) if len(scores) else np.zeros(0, np.int64)
    group_codes, group_ranges = codes[starts].astype(np.int64), ranges[starts]
    blocks = _first_of_runs(group_codes * (1 << 32) + group_ranges)
    sums = [np.add.reduceat(values, starts) if len(starts) else starts for values in weights]
    before = [np.cumsum(values) - values for values in sums]
    block_sizes = np.diff(blocks, append=len(starts))
    own = lower[group_codes[blocks], group_ranges[blocks]]
    base = [np.repeat(own[:, place] - before[place][blocks], block_sizes) for place in range(2)]
    return Groups(
        starts=starts,
        sizes=np.diff(starts, append=len(scores)),
        codes=group_codes,
        ranges=group_ranges,
        positives_below=before[0] + base[0],
        negatives_below=before[1] + base[1],
        positives=sums[0],
        negatives=sums[1],
    )


def _first_of_runs(values: Ints) -> Ints:
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])


def wins(groups: Groups, num_codes: int) -> Floats:
    """[codes] twice the pairs in the right order plus the tied ones. Whole numbers, exact below 2^53."""
    won = groups.positives.astype(np.float64) * groups.doubled_below()
    return np.bincount(groups.codes, weights=won, minlength=num_codes).astype(np.float64)


def precision_sums(groups: Groups, totals: tuple[int, int], num_ranges: int) -> Floats:
    """[ranges] sums of precision over positives: average precision is their sum / positives. For code 0."""
    true = totals[0] - groups.positives_below
    false = totals[1] - groups.negatives_below
    parts = groups.positives * true / np.maximum(true + false, 1)
    return np.bincount(groups.ranges, weights=parts, minlength=num_ranges).astype(np.float64)
