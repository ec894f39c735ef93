"""Standings, wins and influences against every pair, however the rows are cut into parts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score

from jobs.evaluation import ranking, scores
from jobs.evaluation.blobs import Blob
from jobs.evaluation.rankings import POINTS, Totals, count_by_range, rank
from jobs.evaluation.shards import summed
from tests.fixtures import plain_metrics

# Scores that tie, that share a range, and those at either end.
SCORES = st.one_of(
    st.sampled_from(
        [0.0, 1.0, 2.0**-149, 2.0**-30, 0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))]
    ),
    st.floats(0, 1, width=32),
)
PARTS = 3


@st.composite
def drawn_rows(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Rows of a ranking: word, user of the one shard, group, slice."""
    num = draw(st.integers(2, 40))
    p = np.array(draw(st.lists(SCORES, min_size=num, max_size=num)), np.float32)
    label = draw(arrays.arrays(np.int8, num, elements=st.integers(0, 1)))
    label[:2] = (0, 1)
    user = draw(arrays.arrays(np.uint32, num, elements=st.integers(0, 6)))
    code = draw(arrays.arrays(np.uint8, num, elements=st.integers(0, 2)))
    return {
        "word": scores.to_words(p, label),
        "user": user,
        "group": (user % 4).astype(np.uint8),
        "slice_1": code,
    }


def totals_of(rows: dict[str, np.ndarray]) -> Totals:
    uncut, ranges = np.zeros(len(rows["word"]), np.uint8), scores.ranges_of(rows["word"])
    counts = (
        count_by_range(rows["word"], ranges, uncut, 1, None),
        count_by_range(rows["word"], ranges, rows["slice_1"], 3, None),
    )
    return Totals(counts, 1.0)


def ranked(rows: dict[str, np.ndarray], parts: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The summary of all parts and the sums [users] that they add."""
    totals = totals_of(rows)
    where = scores.ranges_of(rows["word"]) % parts
    summaries = []
    sums = {name: np.zeros(7, np.int64) for name in ("below", "above", "scaled_loss")}
    for part in np.unique(where):
        own = Blob(0, int(part), 0, {name: values[where == part] for name, values in rows.items()})
        summary, by_shard = rank("ctr", [own], totals)
        summaries.append(Blob(0, 0, 0, summary))
        for _, found in by_shard:
            for name, values in sums.items():
                values[found["user"]] += found[name]
    return summed(iter(summaries)), sums


@given(drawn_rows())
def test_auc_and_influences_equal_those_of_every_pair(rows: dict[str, np.ndarray]) -> None:
    label = scores.labels_of(rows["word"])
    p = scores.scores_of(rows["word"])
    summary, sums = ranked(rows, PARTS)
    positives, negatives = label.sum(), (1 - label).sum()
    expected = plain_metrics.auc(label, p, rows["user"])
    auc = summary["wins"][0] / (2 * positives * negatives)
    assert auc == pytest.approx(expected.value, abs=1e-12)
    users = np.arange(7)
    k = np.bincount(rows["user"], weights=label, minlength=7)
    rest = np.bincount(rows["user"], weights=1 - label, minlength=7)
    found = (sums["below"] / (2 * negatives) - auc * k) / positives
    found = found + (sums["above"] / (2 * positives) - auc * rest) / negatives
    assert found[np.isin(users, rows["user"])] == pytest.approx(expected.influences, abs=1e-12)
    precision = summary["precision"].sum() / positives
    assert precision == pytest.approx(average_precision_score(label, p), abs=1e-12)


@given(drawn_rows())
def test_slices_are_ranked_apart(rows: dict[str, np.ndarray]) -> None:
    label = scores.labels_of(rows["word"])
    p = scores.scores_of(rows["word"])
    summary, _ = ranked(rows, PARTS)
    for code in range(3):
        own = rows["slice_1"] == code
        positive, negative = p[own & (label == 1)], p[own & (label == 0)]
        pairs = 2 * (positive[:, None] > negative[None, :]) + (positive[:, None] == negative[None, :])
        assert summary["slice_1_wins"][code] == pairs.sum()
        assert summary["slice_1_rows"].reshape(3, -1)[code].sum() == own.sum()


@given(drawn_rows())
def test_parts_do_not_matter(rows: dict[str, np.ndarray]) -> None:
    """Down to the bit, and in another order of rows."""
    once, sums = ranked(rows, 1)
    again, other_sums = ranked({name: values[::-1].copy() for name, values in rows.items()}, 5)
    for name, values in once.items():
        if name in POINTS:
            assert sorted(values) == sorted(again[name])
        else:
            assert np.array_equal(values, again[name]), name
    assert all(np.array_equal(values, other_sums[name]) for name, values in sums.items())


@given(st.lists(SCORES, min_size=1, max_size=50))
def test_words_and_ranges_are_ordered_as_the_scores(values: list[Any]) -> None:
    p = np.sort(np.array(values, np.float32))
    words = scores.to_words(p, np.zeros(len(p), np.uint8))
    assert np.array_equal(scores.scores_of(words), np.abs(p))
    ranges = scores.ranges_of(words)
    assert (np.diff(ranges) >= 0).all() and ranges[0] >= 0 and ranges[-1] < scores.NUM_RANGES
    for score, index in zip(p, ranges, strict=True):
        assert scores.lowest_of(int(index)) <= score
        if index + 1 < scores.NUM_RANGES:
            assert score < scores.lowest_of(int(index) + 1)


def test_rows_in_order() -> None:
    words = np.array([5, 3, 5, 0], np.uint32)
    ordered, places = ranking.sort_rows(words)
    assert ordered.tolist() == [0, 3, 5, 5] and words[places].tolist() == [0, 3, 5, 5]
