"""Checked predictions into blobs by user: the one pass over all rows that reads the files.

Rows go to the shard of their user, so that a user's impressions meet; their sample_ids go elsewhere, to be
compared. Memory: a piece of rows.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.evaluation.blobs import Arrays, Blob, to_batch

ROWS, SAMPLE_IDS, COUNTS = range(3)  # the kinds of blobs

ROWS_PER_PIECE = 1 << 20
ROWS_PER_SHARD = 1 << 20

Pack = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def num_shards(rows: int) -> int:
    """Shards of users, and of what else is dealt. It depends on the rows alone, so that two evaluations of
    the same impressions have the same shards."""
    return max(2, -(-rows // ROWS_PER_SHARD))


def packer(shards: int) -> Pack:
    """For `mapInArrow` over the columns `user`, `sample`, `broken`, `label` and others; rows that are broken
    are only counted."""

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in _pieces(batches):
            for blob in blobs_of(piece, shards):
                yield to_batch(blob)

    return pack


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(rows) for rows in waiting) >= ROWS_PER_PIECE:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if any(len(rows) for rows in waiting):
        yield pa.Table.from_batches(waiting)


def blobs_of(piece: pa.Table, shards: int) -> Iterator[Blob]:
    """The blobs of some rows."""
    num = piece.num_rows
    broken = piece["broken"].to_numpy()
    if broken.any():
        piece = piece.filter(pa.array(~broken))
    columns = {name: piece[name].to_numpy() for name in piece.column_names if name != "broken"}
    samples = columns.pop("sample").view(np.uint64)
    counts = {
        "rows": np.array([num]),
        "broken": np.array([num - piece.num_rows]),
        "digest": digest_of(samples, columns["label"]),
    }
    yield Blob(COUNTS, 0, 0, counts)
    yield from deal(SAMPLE_IDS, 0, {"sample": samples}, samples % np.uint64(shards), shards)
    yield from deal(ROWS, 0, columns, columns["user"].view(np.uint64) % np.uint64(shards), shards)


def deal(kind: int, origin: int, columns: Arrays, parts: npt.NDArray[np.integer], num: int) -> Iterator[Blob]:
    """A blob per part that rows go to, in their order. columns: all [N]; parts [N] in [0, num)."""
    small = parts.astype(np.uint16 if num <= 1 << 16 else np.int64)  # 16 bits are sorted in linear time
    order = np.argsort(small, kind="stable")
    taken = {name: values[order] for name, values in columns.items()}
    ends = np.cumsum(np.bincount(small, minlength=num))
    for part, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if begin < end:
            yield Blob(kind, part, origin, {name: values[begin:end] for name, values in taken.items()})


def digest_of(samples: npt.NDArray[np.uint64], labels: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
    """[1] a sum over impressions and their labels, in any order. samples: hashes of the sample_ids."""
    mixed = samples ^ (labels.astype(np.uint64) << np.uint64(60))
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # finaliser of MurmurHash3
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(33))).sum(dtype=np.uint64).reshape(1)
