"""The AUC on one process against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from esmm.training.validation import auc


@pytest.mark.parametrize("distinct_scores", [1, 2, 7, 100, 10**6])
def test_equals_scikit_learn(distinct_scores: int) -> None:
    rng = np.random.default_rng(distinct_scores)
    scores = (rng.integers(0, distinct_scores, 3000) / distinct_scores).astype(np.float32)
    labels = (rng.random(3000) < 0.1 + 0.2 * scores).astype(np.float32)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.9], [0, 1], 1.0),
        ([0.1, 0.9], [1, 0], 0.0),
        ([0.5, 0.5, 0.5], [0, 1, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([0.1, 0.9], [0, 0], None),
        ([0.1, 0.9], [1, 1], None),
        ([], [], None),
    ],
)
def test_known_values(scores: list[float], labels: list[int], expected: float | None) -> None:
    assert auc(np.array(scores, np.float64), np.array(labels)) == expected


def test_no_overflow_with_many_pairs() -> None:
    """1.2 million positives against 1.2 million negatives: 1.4e12 pairs, far beyond 32 bits."""
    labels = np.tile([0, 1], 1_200_000)
    assert auc(np.arange(len(labels), dtype=np.float64), labels) == pytest.approx(0.5, abs=1e-6)
