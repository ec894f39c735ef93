"""The formulas of the profile: numbers in, numbers out. Sources: docs/profile.md.

places: the buckets that an id can fall into, so not that of missing, nor that of rare ids.
"""

from collections.abc import Sequence
from math import expm1, log, log1p, sqrt

from schemas.ids import expected_collision_rate

MOST_BUCKETS = 1 << 30  # the largest power of two that fits the samples' int32


def distinct_ids(used: int, places: int) -> float | None:
    """Ids behind `used` of m places by linear counting, -m ln(1 - used/m); None where all are used.

    Whang, Vander-Zanden and Taylor, ACM Transactions on Database Systems 15 (1990), 208-229.
    """
    return None if used >= places else -places * log1p(-used / places)


def distinct_ids_error(ids: float, places: int) -> float:
    """Relative standard error of `distinct_ids`, sqrt(m (e^t - t - 1)) / n with t = n/m (ibid.)."""
    load = ids / places
    return sqrt(places * (expm1(load) - load)) / ids if ids else 0.0


def fewest_ids(used: int, places: int) -> float:
    """`distinct_ids`, or where all places are used the estimate for one of them still empty."""
    return distinct_ids(min(used, max(0, places - 1)), places) or 0.0


def collision_rate(ids: float, places: int) -> float:
    """Expected share of ids that share their place with another one: 1 - (1 - 1/m)^(n-1)."""
    return expected_collision_rate(round(ids), places)


def propose_buckets(ids: float, target: float, least: int, reserved: int) -> int:
    """The smallest power of two, not below `least`, whose collision rate for `ids` is at most `target`.

    reserved: buckets that are no places.
    """
    buckets = 1 << max(2, (least - 1).bit_length())
    while collision_rate(ids, buckets - reserved) > target and buckets < MOST_BUCKETS:
        buckets *= 2
    return buckets


def propose_vocabulary(ids: int, least: int, reserved: int) -> int:
    """The smallest power of two, not below `least`, with a place for each id."""
    return 1 << max(2, (max(ids + reserved, least) - 1).bit_length())


def stability_index(counts: Sequence[int], reference: Sequence[int]) -> float | None:
    """Population stability index over bins, sum (p - q) ln(p / q); None where one side is empty.

    Siddiqi, Credit Risk Scorecards (2006); as a divergence: Jeffreys (1946). Half a count is added to
    every bin that is not empty on both sides, so that a bin empty on one side has a logarithm.
    """
    pairs = [(a, b) for a, b in zip(counts, reference, strict=True) if a or b]
    ours = sum(a for a, _ in pairs)
    theirs = sum(b for _, b in pairs)
    if not ours or not theirs:
        return None
    added = len(pairs) / 2
    shares = [((a + 0.5) / (ours + added), (b + 0.5) / (theirs + added)) for a, b in pairs]
    return sum((p - q) * log(p / q) for p, q in shares)
