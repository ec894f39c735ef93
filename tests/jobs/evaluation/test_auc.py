"""Spark's exact AUC against scikit-learn, and against counting every pair."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.metrics import roc_auc_score

from jobs.evaluation.auc import NO_PAIRS, Pairs, Ranking, compute_auc, count_pairs, count_ranges, count_scores

# A case is a list of (score, positives, negatives).
Case = Sequence[tuple[float, int, int]]

PARTITIONS = "spark.sql.shuffle.partitions"
COALESCE = "spark.sql.adaptive.coalescePartitions.enabled"
RNG = np.random.default_rng(0)


def labelled(scores: np.ndarray, labels: np.ndarray) -> Case:
    return [(float(s), int(y), 1 - int(y)) for s, y in zip(scores, labels, strict=True)]


def by_every_pair(case: Case) -> Pairs:
    """Right and tied pairs counted one by one, in Python's integers."""
    wins = sum(p * n * (2 if high > low else 1) for high, p, _ in case for low, _, n in case if high >= low)
    return Pairs(sum(p for _, p, _ in case), sum(n for _, _, n in case), wins)


def by_scikit_learn(case: Case) -> float:
    scores, positives, _ = zip(*case, strict=True)
    return float(roc_auc_score(positives, scores))


def frame(spark: SparkSession, cases: Sequence[Case]) -> DataFrame:
    rows = [(index, *row) for index, case in enumerate(cases) for row in case]
    return spark.createDataFrame(rows, "case int, score double, positives long, negatives long")


def rankings(num_cases: int) -> list[Ranking]:
    def only(index: int, name: str) -> Column:
        return F.when(F.col("case") == index, F.col(name)).otherwise(0)

    return [
        Ranking(str(index), F.col("score"), only(index, "positives"), only(index, "negatives"))
        for index in range(num_cases)
    ]


def spark_pairs(spark: SparkSession, cases: Sequence[Case]) -> list[Pairs]:
    """All cases in one Spark job."""
    found = compute_auc(frame(spark, cases), rankings(len(cases)))
    return [found[str(index)] for index in range(len(cases))]


@pytest.fixture
def uncoalesced(spark: SparkSession) -> Iterator[SparkSession]:
    """Small data would be put into one partition, and nothing would be left to merge."""
    before = {key: spark.conf.get(key) or "" for key in (PARTITIONS, COALESCE)}
    spark.conf.set(COALESCE, "false")
    yield spark
    for key, value in before.items():
        spark.conf.set(key, value)


def test_equals_scikit_learn(uncoalesced: SparkSession) -> None:
    n = 2000
    labels = RNG.random(n) < 0.1
    cases = {
        "distinct scores": RNG.random(n),
        "heavy ties": RNG.integers(0, 5, n) / 7,
        "float32 scores": (RNG.random(n) + 0.5 * labels).astype(np.float32),
        "nearly all tied": np.where(RNG.random(n) < 0.99, 0.25, RNG.random(n)),
        "perfect": labels * 1.0,
        "reversed": labels * -1.0,
        "signed zeros": np.where(RNG.random(n) < 0.5, -0.0, 0.0),
    }
    drawn = [labelled(scores, labels) for scores in cases.values()]
    found = [pairs.auc for pairs in spark_pairs(uncoalesced, drawn)]
    assert found == pytest.approx([by_scikit_learn(case) for case in drawn], abs=1e-9)


def test_all_scores_equal_is_one_half(spark: SparkSession) -> None:
    case = labelled(np.full(100, 0.3), np.arange(100) < 7)
    assert spark_pairs(spark, [case])[0].auc == 0.5


def test_a_missing_class_is_undefined(spark: SparkSession) -> None:
    scores = RNG.random(20)
    cases = [labelled(scores, np.ones(20)), labelled(scores, np.zeros(20)), []]
    found = spark_pairs(spark, cases)
    assert found[0][:2] == (20, 0) and found[1][:2] == (0, 20) and found[2] == NO_PAIRS
    assert [pairs.auc for pairs in found] == [None, None, None]


SMALL_CASE = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]) | st.floats(0, 1), st.integers(0, 3), st.integers(0, 3)
    ),
    max_size=12,
)


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases=st.lists(SMALL_CASE, min_size=15, max_size=15))
def test_small_cases_in_spark_equal_counting_every_pair(spark: SparkSession, cases: list[Case]) -> None:
    assert spark_pairs(spark, cases) == [by_every_pair(case) for case in cases]


def test_partitioning_does_not_matter(uncoalesced: SparkSession) -> None:
    scores = RNG.integers(0, 300, 3000) / 300
    cases = [labelled(scores, RNG.random(3000) < scores), labelled(scores, RNG.random(3000) < 0.2)]
    rows = frame(uncoalesced, cases)
    expected = [by_scikit_learn(case) for case in cases]
    found = []
    for num_ranges, num_inputs in ((1, 1), (3, 5), (7, 2)):
        uncoalesced.conf.set(PARTITIONS, num_ranges)
        found.append(compute_auc(rows.repartition(num_inputs), rankings(2)))
    assert found[0] == found[1] == found[2]
    assert [found[0][name].auc for name in ("0", "1")] == pytest.approx(expected, abs=1e-12)


def test_a_ranking_spreads_over_several_ranges(uncoalesced: SparkSession) -> None:
    rows = frame(uncoalesced, [labelled(RNG.random(1000), RNG.random(1000) < 0.5)])
    assert count_ranges(count_scores(rows, rankings(1))).count() > 1


def test_weights_beyond_64_bits_equal_counting_every_pair(uncoalesced: SparkSession) -> None:
    weights = RNG.integers(0, 1 << 50, (200, 2))
    case = [(float(s), int(p), int(n)) for s, (p, n) in zip(RNG.integers(0, 60, 200), weights, strict=True)]
    found = spark_pairs(uncoalesced, [case])[0]
    assert found.doubled_wins > 1 << 64
    assert found == by_every_pair(case)


@given(
    counts=st.lists(st.tuples(st.integers(0, 1 << 54), st.integers(0, 1 << 54)), min_size=1, max_size=20),
    cut=st.integers(0, 20),
)
def test_count_pairs_is_exact_and_merges(counts: list[tuple[int, int]], cut: int) -> None:
    case = [(float(index), p, n) for index, (p, n) in enumerate(counts)]
    expected = by_every_pair(case)
    positives, negatives = np.array(counts, np.int64).T
    assert count_pairs(positives, negatives) == expected
    parts = [part for part in np.split(np.arange(len(counts)), [cut]) if len(part)]
    merged = NO_PAIRS
    for part in parts:
        merged = merged.below(count_pairs(positives[part], negatives[part]))
    assert merged == expected
