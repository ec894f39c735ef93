"""Intervals: clustered by user, DeLong's where users have one impression each; what replicates are."""

import numpy as np
import pytest
from scipy.stats import binom

from jobs.evaluation import content, replicates
from jobs.evaluation.cuts import Cut
from jobs.evaluation.figures import figures_of, standard_error
from jobs.evaluation.rankings import NUM_CELLS, STEPS
from jobs.evaluation.users import NUM_GROUPS, Shard
from tests.fixtures import plain_metrics
from tests.fixtures.evaluated import evaluated


def drawn(num: int, users: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, score and user; users differ in both rates, so that their impressions are not independent."""
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, users, num)) if users < num else np.arange(num)
    effect = rng.normal(0, 1, users)[user]
    logit = rng.normal(-1, 1, num) + effect
    label = (rng.random(num) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    p = np.round(1 / (1 + np.exp(-(logit + rng.normal(0, 1, num)))), 2).clip(0.01, 0.99).astype(np.float32)
    return label, p, user


def test_users_of_one_impression_make_it_delong() -> None:
    label, p, user = drawn(400, 400)
    task = evaluated(label, p, user)
    found = standard_error(figures_of(task)["auc"], task)
    expected = plain_metrics.delong(label, p)
    # I / (I - 1) of all impressions against one of each class.
    assert found == pytest.approx(expected, rel=2e-3)
    positives, negatives = task.positives, task.negatives
    psi = plain_metrics.auc(label, p, user).influences
    assert psi is not None
    parts = [(psi[label == 1] ** 2).sum() * positives / (positives - 1)]
    parts.append((psi[label == 0] ** 2).sum() * negatives / (negatives - 1))
    assert np.sqrt(sum(parts)) == pytest.approx(expected, rel=1e-9)


def test_impressions_of_a_user_make_the_interval_wider() -> None:
    label, p, user = drawn(2000, 40)
    task = evaluated(label, p, user)
    assert standard_error(figures_of(task)["auc"], task) == pytest.approx(
        plain_metrics.auc(label, p, user).error, rel=1e-9
    )
    assert plain_metrics.auc(label, p, user).error > 1.4 * plain_metrics.delong(label, p)


def test_replicates_of_average_precision_vary_as_resampled_users_do() -> None:
    label, p, user = drawn(4000, 200, seed=3)
    group = user % NUM_GROUPS
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(200):
        weight = rng.poisson(1, 200)[user]
        draws.append(weighted_average_precision(label, p, weight))
    positives_above = np.array([(label[p >= score]).sum() for score in p])
    negatives_above = np.array([(1 - label[p >= score]).sum() for score in p])
    cell = STEPS * positives_above // label.sum() + STEPS * negatives_above // (1 - label).sum()
    shape = (NUM_CELLS, NUM_GROUPS)
    rows, positives = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    np.add.at(rows, (cell, group), 1)
    np.add.at(positives, (cell, group), label)
    found = replicates.of_pr_auc(rows.ravel(), positives.ravel())
    assert found.std() == pytest.approx(np.std(draws), rel=0.25)
    assert found.mean() == pytest.approx(np.mean(draws), abs=0.02)


def weighted_average_precision(label: np.ndarray, p: np.ndarray, weight: np.ndarray) -> float:
    order = np.argsort(-p, kind="stable")
    y, w = label[order], weight[order]
    return float((w * y * np.cumsum(w * y) / np.maximum(np.cumsum(w), 1)).sum() / (w * y).sum())


def test_replicates_are_the_same_always() -> None:
    assert np.array_equal(replicates.weights(), replicates.weights())
    assert replicates.weights().mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("n", "p"), [(50, 0.03), (1000, 0.2), (7, 0.9), (100_000, 0.0002), (10**6, 0.3)])
def test_mean_deviation_of_a_binomial(n: int, p: float) -> None:
    low, high = binom.interval(1 - 1e-12, n, p)
    likely = np.arange(low, high + 1)
    expected = (np.abs(likely - n * p) * binom.pmf(likely, n, p)).sum()
    assert content._mean_deviation(n, p) == pytest.approx(expected, rel=1e-3)


def test_slices_by_bounds_and_by_values() -> None:
    shard = Shard(
        {"field_x": np.array([0, 10, 11, 50, 51])}, np.array([1, 9], np.uint64), np.array([0, 3, 5])
    )
    by_bounds = Cut("x", "field_x", bounds=(10, 50))
    assert [by_bounds.labels[code] for code in by_bounds.codes(shard)] == [
        "0 to 10",
        "0 to 10",
        "11 to 50",
        "11 to 50",
        "51 or more",
    ]
    by_values = Cut("x", "field_x", values=(10, 51))
    assert [by_values.labels[code] for code in by_values.codes(shard)] == [
        "others",
        "10",
        "others",
        "others",
        "51",
    ]
    assert Cut("impressions", None, bounds=(2,)).codes(shard).tolist() == [1, 1, 1, 0, 0]
