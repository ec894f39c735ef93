"""Scores as 32 bits: a float32 in [0, 1] with its label, and the range of scores that it lies in.

The bits of a float32 above 0 are ordered as the numbers are, and below 2^30 for numbers up to 1, so that a
label fits under them. Ranges are fixed, 16 to an octave: what is summed by range does not depend on how
the rows were read, and rows can be dealt to them before any has been sorted.
"""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

RANGES_PER_OCTAVE = 16
OCTAVES = 24  # smaller scores share the first range
NUM_RANGES = OCTAVES * RANGES_PER_OCTAVE + 2  # the last is that of 1
_SHIFT = 23 - 4
_ONE = 127 << 4

# A probability of exactly 0 or 1 against the other label would cost infinitely much: take float32's
# neighbours instead. No other float32 is changed.
SMALLEST_FLOAT32 = 2.0**-149
FLOAT32_BELOW_ONE = 1 - 2.0**-24

UNIT = 1 << 36  # sums are of whole numbers of 1 / UNIT, so that they do not depend on the order of rows


def to_words(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]) -> Words:
    """[N] in the order of the scores, tied ones by label. scores [N] in [0, 1]; labels [N] of 0 and 1."""
    bits = np.abs(scores).view(np.uint32)  # -0 is 0
    return (bits << np.uint32(1)) | labels.astype(np.uint32)


def scores_of(words: Words) -> npt.NDArray[np.float32]:
    """[N] the scores."""
    return (words >> np.uint32(1)).view(np.float32)


def labels_of(words: Words) -> npt.NDArray[np.int64]:
    """[N] 0 or 1."""
    return (words & np.uint32(1)).astype(np.int64)


def ranges_of(words: Words) -> npt.NDArray[np.int64]:
    """[N] in [0, NUM_RANGES), rising with the score."""
    tops = (words >> np.uint32(_SHIFT + 1)).astype(np.int64)
    return np.maximum(tops - (_ONE - OCTAVES * RANGES_PER_OCTAVE) + 1, 0)


def lowest_of(index: int) -> float:
    """The smallest score of a range."""
    if index == 0:
        return 0.0
    top = index - 1 + _ONE - OCTAVES * RANGES_PER_OCTAVE
    return float(np.array([top << _SHIFT], np.uint32).view(np.float32)[0])


def units(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """[N] as whole numbers of 1 / UNIT."""
    return np.rint(values.astype(np.float64) * UNIT).astype(np.int64)


def log_losses(p: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """[N] -ln p(label)."""
    inside = np.clip(p.astype(np.float64), SMALLEST_FLOAT32, FLOAT32_BELOW_ONE)
    return -np.where(labels == 1, np.log(inside), np.log1p(-inside))
