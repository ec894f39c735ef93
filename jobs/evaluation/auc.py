"""Exact AUC with ties, without collecting rows: DataFrame -> DataFrame, and a merge of a few totals.

AUC = (pairs of a positive and a negative in the right order + half the tied pairs) / all pairs.
Rows become counts per distinct score; range partitions of these are counted one by one and merged
in score order. All counts are integers, so the result does not depend on the partitioning.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

INT64_LIMIT = 1 << 63


class Ranking(NamedTuple):
    """One score to be judged. The columns are whole numbers >= 0: how many positives and negatives
    a row stands for; a row with neither is not judged."""

    name: str
    score: Column
    positives: Column
    negatives: Column


class Pairs(NamedTuple):
    """Totals over a range of scores. doubled_wins: 2 * pairs in the right order + tied pairs."""

    positives: int
    negatives: int
    doubled_wins: int

    def below(self, higher: "Pairs") -> "Pairs":
        """The union with a range that lies wholly above this one."""
        between = 2 * self.negatives * higher.positives
        return Pairs(
            self.positives + higher.positives,
            self.negatives + higher.negatives,
            self.doubled_wins + higher.doubled_wins + between,
        )

    @property
    def auc(self) -> float | None:
        """The AUC, correctly rounded from exact integers; None where a class is missing."""
        pairs = self.positives * self.negatives
        return self.doubled_wins / (2 * pairs) if pairs else None


NO_PAIRS = Pairs(0, 0, 0)


def compute_auc(rows: DataFrame, rankings: Sequence[Ranking]) -> dict[str, Pairs]:
    """The totals of every ranking, in one job; memory on the driver: a line per range partition."""
    counts = count_scores(rows, rankings)
    parts = [row.asDict() for row in count_ranges(counts).collect()]
    return {ranking.name: _merge(parts, index) for index, ranking in enumerate(rankings)}


def _merge(parts: Iterable[dict[str, Any]], ranking: int) -> Pairs:
    # Range partitions do not overlap, so their lowest scores put them in order.
    own = sorted((part for part in parts if part["ranking"] == ranking), key=lambda part: part["lowest"])
    totals = (Pairs(*(int(part[name]) for name in Pairs._fields)) for part in own)
    return reduce(Pairs.below, totals, NO_PAIRS)


def count_scores(rows: DataFrame, rankings: Sequence[Ranking]) -> DataFrame:
    """(ranking int, score double, positives long, negatives long), one row per distinct score."""
    judged = F.array(
        *(
            F.struct(
                F.lit(index).alias("ranking"),
                ranking.score.cast("double").alias("score"),
                ranking.positives.cast("long").alias("positives"),
                ranking.negatives.cast("long").alias("negatives"),
            )
            for index, ranking in enumerate(rankings)
        )
    )
    stacked = rows.select(F.inline(judged)).where(F.col("positives") + F.col("negatives") > 0)
    totals = (F.sum(name).alias(name) for name in ("positives", "negatives"))
    return stacked.groupBy("ranking", "score").agg(*totals)


def count_ranges(counts: DataFrame) -> DataFrame:
    """`Pairs` per range partition and ranking, as decimal strings since they may exceed 64 bits."""
    ordered = counts.repartitionByRange("ranking", "score").sortWithinPartitions("ranking", "score")
    schema = "ranking int, lowest double, " + ", ".join(f"{name} string" for name in Pairs._fields)
    return ordered.mapInArrow(_count_range, schema)


def _count_range(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    lowest: dict[int, float] = {}
    totals: dict[int, Pairs] = {}
    for batch in batches:
        rankings, scores, positives, negatives = (column.to_numpy() for column in batch.columns)
        starts = np.flatnonzero(np.diff(rankings, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(rankings)], strict=True):
            ranking = int(rankings[start])
            lowest.setdefault(ranking, float(scores[start]))
            higher = count_pairs(positives[start:end], negatives[start:end])
            totals[ranking] = totals.get(ranking, NO_PAIRS).below(higher)
    yield _totals_batch(lowest, totals)


def _totals_batch(lowest: dict[int, float], totals: dict[int, Pairs]) -> pa.RecordBatch:
    columns = {
        "ranking": pa.array(totals.keys(), pa.int32()),
        "lowest": pa.array((lowest[ranking] for ranking in totals), pa.float64()),
    }
    for name in Pairs._fields:
        columns[name] = pa.array((str(getattr(pairs, name)) for pairs in totals.values()), pa.string())
    return pa.RecordBatch.from_pydict(columns)


def count_pairs(positives: np.ndarray, negatives: np.ndarray) -> Pairs:
    """Totals of distinct scores in ascending order; int64 arrays of equal length, at least 1.

    Where 64 bits might not hold the sum, halves are counted apart and merged in Python's integers.
    """
    num_positives = int(positives.sum())
    num_negatives = int(negatives.sum())
    if 2 * num_positives * num_negatives < INT64_LIMIT:
        doubled_below_and_tied = 2 * np.cumsum(negatives) - negatives
        return Pairs(num_positives, num_negatives, int((positives * doubled_below_and_tied).sum()))
    if len(positives) == 1:
        return Pairs(num_positives, num_negatives, num_positives * num_negatives)
    middle = len(positives) // 2
    lower = count_pairs(positives[:middle], negatives[:middle])
    return lower.below(count_pairs(positives[middle:], negatives[middle:]))
