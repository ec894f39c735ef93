"""Classes of buckets say of a chunk all that its buckets say one by one."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.profiling.merge import FEW_BUCKETS, classes, merge
from jobs.profiling.tally import ARROW_SCHEMA as COUNTS
from jobs.profiling.tally import BUCKET, CHUNK, LENGTH, OURS, RANKING, THEIRS, WEIGHT
from schemas.hashing import RARE

TOKENS = st.dictionaries(st.integers(0, CHUNK - 1), st.tuples(*[st.integers(0, 3)] * 3), max_size=120)


def plain_classes(tokens: np.ndarray, each_alone: bool) -> dict:
    """By (ranking, has ours, has theirs, bucket if alone): buckets and tokens of ours, ranking, theirs."""
    found: dict = {}
    for bucket, (ours, ranking, theirs) in enumerate(tokens.T.tolist()):
        if ours or ranking or theirs:
            alone = bucket == RARE or (each_alone and ranking > 0)
            key = (ranking, ours > 0, theirs > 0, bucket if alone else None)
            sums = found.setdefault(key, [0, 0, 0, 0])
            for place, number in enumerate((1, ours, ranking, theirs)):
                sums[place] += number
    return found


@given(TOKENS)
def test_classes_agree_with_plain_python(drawn: dict[int, tuple[int, int, int]]) -> None:
    tokens = np.zeros((3, CHUNK), np.int64)
    for bucket, counts in drawn.items():
        tokens[:, bucket] = counts
    tokens[:, 5] = (5, 4, 3)  # only chunks with some token travel
    each_alone = np.count_nonzero(tokens[RANKING]) <= FEW_BUCKETS
    found = {}
    for row in classes(7, 0, tokens).to_pylist():
        assert (row["kind"], row["field"]) == (BUCKET, 7)
        bucket = row["value"]
        assert tokens[RANKING, bucket] * row["num"] == row["ranking"]
        alone = bucket if bucket == RARE or (each_alone and row["ranking"]) else None
        key = (row["ranking"] // row["num"], row["ours"] > 0, row["theirs"] > 0, alone)
        assert key not in found
        found[key] = [row[name] for name in ("num", "ours", "ranking", "theirs")]
    assert found == plain_classes(tokens, each_alone)


def row(part: int, kind: int, field: int, value: int, **rest) -> dict:
    return {"part": part, "kind": kind, "field": field, "value": value, "count": 0, **rest}


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3, 4, 5, 6)])
def test_chunks_are_added_over_parts_and_batches(cuts: tuple[int, ...]) -> None:
    one, short = np.arange(CHUNK), np.array([0, 9])
    rows = [
        row(OURS, BUCKET, 1, 0, tokens=one.tobytes()),
        row(THEIRS, BUCKET, 1, 0, tokens=one.tobytes()),
        row(OURS, BUCKET, 1, 0, tokens=one.tobytes()),
        row(OURS, BUCKET, 1, CHUNK, tokens=short.tobytes()),
        row(RANKING, LENGTH, 1, 6, count=5),
        row(OURS, WEIGHT, 1, 0, count=4, low=0.5, high=2.5, total=6.0),
        row(THEIRS, WEIGHT, 1, 0, count=4, low=0.1, high=9.5, total=6.0),
    ]
    edges = [0, *cuts, len(rows)]
    parts = [rows[a:b] for a, b in pairwise(edges)]
    merged = [r for b in merge(pa.RecordBatch.from_pylist(p, COUNTS) for p in parts) for r in b.to_pylist()]
    buckets = [r for r in merged if r["kind"] == BUCKET]
    assert sum(r["ours"] for r in buckets) == 2 * one.sum() + 9
    assert sum(r["theirs"] for r in buckets) == one.sum()
    assert [(r["value"], r["num"], r["ours"]) for r in buckets if r["value"] >= CHUNK] == [(CHUNK + 1, 1, 9)]
    others = [
        [r[name] for name in ("ours", "ranking", "theirs", "low")] for r in merged if r["kind"] != BUCKET
    ]
    assert others == [[0, 5, 0, None], [4, 0, 0, 0.5], [0, 0, 4, None]]
