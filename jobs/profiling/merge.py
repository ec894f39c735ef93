"""Merging the counts of all tasks: rows of `tally` sorted by kind, field and value in, sums out.

The merged rows are (kind, field, value, num, ours, ranking, theirs, low, high, total). ours, ranking and
theirs are the counts of the three parts; low, high and total belong to ours. Of buckets a row is a class of
`num` buckets alike in: how many tokens each has in RANKING, and whether it has any in OURS and in THEIRS.
Its counts are the tokens of the whole class, its value is one of the buckets. A chunk where RANKING uses so
few buckets that the field may be one of few gets a row for each of these, and bucket 1 always has its own:
where the field has an id table it holds the rare ids. All other rows have num = 1 and may come in pieces.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.profiling.tally import BUCKET, CHUNK, OURS, RANKING, THEIRS
from schemas.hashing import RARE

# A field of which RANKING uses no more buckets has them compared one by one.
FEW_BUCKETS = 20

ARROW_SCHEMA = pa.schema(
    [
        ("kind", pa.int8()),
        ("field", pa.int16()),
        *((name, pa.int64()) for name in ("value", "num", "ours", "ranking", "theirs")),
        *((name, pa.float64()) for name in ("low", "high", "total")),
    ]
)
SPARK_SCHEMA = """kind byte, field short, value long, num long, ours long, ranking long, theirs long,
    low double, high double, total double"""

Array = np.ndarray


def merge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For `mapInArrow`; memory: a batch and one chunk of buckets."""
    open_chunk: tuple[int, int] | None = None  # field, first bucket
    tokens = np.zeros((3, CHUNK), np.int64)
    for batch in batches:
        of_buckets = pc.equal(batch.column("kind"), BUCKET)
        yield _passed(batch.filter(pc.invert(of_buckets)))
        chunks = batch.filter(of_buckets)
        names = ("part", "field", "value", "tokens")
        for part, field, first, blob in zip(*(chunks.column(name) for name in names), strict=True):
            chunk = (field.as_py(), first.as_py())
            if open_chunk not in (None, chunk):
                yield classes(*open_chunk, tokens)
                tokens[:] = 0
            open_chunk = chunk
            counts = np.frombuffer(blob.as_buffer(), np.int64)
            tokens[part.as_py(), : len(counts)] += counts
    if open_chunk is not None:
        yield classes(*open_chunk, tokens)


def classes(field: int, first: int, tokens: Array) -> pa.RecordBatch:
    """The classes of a chunk of buckets. tokens: int64 [3, CHUNK], of OURS, RANKING and THEIRS."""
    used = np.flatnonzero(tokens.any(axis=0))
    ours, ranking, theirs = (tokens[part, used] for part in (OURS, RANKING, THEIRS))
    few = np.count_nonzero(ranking) <= FEW_BUCKETS
    alone = np.where((few & (ranking > 0)) | (first + used == RARE), 1 + used, 0)
    keys = (alone, theirs > 0, ours > 0, ranking)
    order = np.lexsort(keys)
    changes = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    begins = np.concatenate(([0], 1 + np.flatnonzero(changes)))
    sums = [np.add.reduceat(counts[order], begins) for counts in (ours, ranking, theirs)]
    num = np.diff(np.append(begins, len(used)))
    return _rows(BUCKET, field, first + used[order][begins], num, *sums)


def _passed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of other kinds, their counts put where their part belongs."""
    part, count = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("part", "count"))
    counts = [np.where(part == wanted, count, 0) for wanted in (OURS, RANKING, THEIRS)]
    ours = pa.array(part == OURS)
    figures = [pc.if_else(ours, batch.column(name), None) for name in ("low", "high", "total")]
    keys = [batch.column(name) for name in ("kind", "field", "value")]
    arrays = [*keys, pa.array(np.ones(len(part), np.int64)), *map(pa.array, counts), *figures]
    return pa.RecordBatch.from_arrays(arrays, schema=ARROW_SCHEMA)


def _rows(kind: int, field: int, *columns: Array) -> pa.RecordBatch:
    """Rows without figures. columns: value, num, ours, ranking, theirs."""
    length = len(columns[0])
    keys = [pa.array(np.full(length, kind, np.int8)), pa.array(np.full(length, field, np.int16))]
    figures = [pa.nulls(length, pa.float64())] * 3
    return pa.RecordBatch.from_arrays([*keys, *map(pa.array, columns), *figures], schema=ARROW_SCHEMA)
