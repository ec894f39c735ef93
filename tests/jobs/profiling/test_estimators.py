"""The formulas of the profile against simulation, closed forms and hand calculation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.profiling import estimators as figures


def thrown(rng: np.random.Generator, ids: int, places: int) -> np.ndarray:
    """Ids per place after throwing `ids` at random."""
    return np.bincount(rng.integers(0, places, ids), minlength=places)


@pytest.mark.parametrize(("ids", "places"), [(50, 4095), (1000, 1023), (3000, 1023), (20_000, 65_534)])
def test_distinct_ids_are_estimated_within_their_error(ids: int, places: int) -> None:
    rng = np.random.default_rng(ids)
    estimates = [figures.distinct_ids(np.count_nonzero(thrown(rng, ids, places)), places) for _ in range(200)]
    error = figures.distinct_ids_error(ids, places)
    assert np.mean(estimates) == pytest.approx(ids, rel=0.005 + 4 * error / math.sqrt(200))
    assert np.std(estimates) / ids == pytest.approx(error, rel=0.25)


def test_saturated_fields_have_no_estimate_but_a_least_number() -> None:
    assert figures.distinct_ids(1023, 1023) is None
    # One of 1023 places empty: 1023 ln 1023.
    assert figures.fewest_ids(1023, 1023) == pytest.approx(1023 * math.log(1023))
    assert figures.fewest_ids(100, 1023) == figures.distinct_ids(100, 1023)


@pytest.mark.parametrize(("ids", "places"), [(2, 4), (500, 1023), (4000, 1023)])
def test_collision_rate_is_the_mean_share_of_ids_that_are_not_alone(ids: int, places: int) -> None:
    rng = np.random.default_rng(7)
    throws = [thrown(rng, ids, places) for _ in range(2000)]
    shared = [held[held > 1].sum() / ids for held in throws]
    spread = np.std(shared) / math.sqrt(len(shared))
    assert figures.collision_rate(ids, places) == pytest.approx(np.mean(shared), abs=4 * spread + 1e-9)


def test_collision_rate_at_its_ends() -> None:
    assert figures.collision_rate(0, 511) == figures.collision_rate(1, 511) == 0
    assert figures.collision_rate(2, 1) == 1
    assert figures.collision_rate(2, 2) == pytest.approx(1 / 2)


@given(
    ids=st.floats(0, 1e8),
    target=st.floats(0.01, 0.9),
    least=st.integers(2, 1 << 20),
    reserved=st.integers(1, 2),
)
def test_proposal_is_the_smallest_power_of_two_that_keeps_the_target(
    ids: float, target: float, least: int, reserved: int
) -> None:
    buckets = figures.propose_buckets(ids, target, least, reserved)
    assert buckets >= least and buckets & (buckets - 1) == 0
    assert figures.collision_rate(ids, buckets - reserved) <= target or buckets == figures.MOST_BUCKETS
    half = buckets // 2
    assert half < max(4, least) or figures.collision_rate(ids, half - reserved) > target


@given(ids=st.integers(0, 1 << 20), least=st.integers(2, 1 << 20))
def test_vocabulary_has_a_bucket_for_each_id_and_the_two_reserved(ids: int, least: int) -> None:
    buckets = figures.propose_vocabulary(ids, least, reserved=2)
    assert buckets & (buckets - 1) == 0
    assert buckets >= max(ids + 2, least)
    assert buckets == 4 or buckets // 2 < max(ids + 2, least)


def test_target_of_the_default_takes_at_least_two_buckets_per_id() -> None:
    for ids in (10_000, 300_000, 3_206_396):
        assert 1.9 * ids < figures.propose_buckets(ids, 0.4, 2, 1) < 4 * ids


def test_stability_index_by_hand() -> None:
    # Half a count more in both bins: shares 10.5/21 and 15.5/21 on one bin, 10.5/21 and 5.5/21 on the other.
    p, q = (10.5 / 21, 10.5 / 21), (15.5 / 21, 5.5 / 21)
    expected = (p[0] - q[0]) * math.log(p[0] / q[0]) + (p[1] - q[1]) * math.log(p[1] / q[1])
    assert figures.stability_index([10, 10], [15, 5]) == pytest.approx(expected)
    assert expected == pytest.approx(0.2467, abs=1e-4)


def test_stability_index_leaves_out_bins_that_are_empty_on_both_sides() -> None:
    assert figures.stability_index([10, 0, 10], [15, 0, 5]) == figures.stability_index([10, 10], [15, 5])


def test_stability_index_of_nothing_is_undefined() -> None:
    assert figures.stability_index([], []) is None
    assert figures.stability_index([3, 4], [0, 0]) is None


COUNTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=21)


@given(COUNTS)
def test_stability_index_is_symmetric_never_negative_and_zero_for_equal_sides(
    pairs: list[tuple[int, int]],
) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    if sum(ours) and sum(theirs):
        index = figures.stability_index(ours, theirs)
        assert index == pytest.approx(figures.stability_index(theirs, ours))
        assert index >= 0
        assert figures.stability_index(ours, ours) == 0
