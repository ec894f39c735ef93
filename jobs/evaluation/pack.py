"""Checked predictions into blobs by user: the one pass over all rows that reads the files.

Rows go to the shard of their user, so that a user's impressions meet; their sample_ids go elsewhere, to be
compared. Memory: a piece of rows.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.evaluation import prediction_files
from jobs.evaluation.blobs import Arrays, Blob, Stage, at_positions, to_batch
from jobs.evaluation.prediction_files import Piece
from jobs.evaluation.rows import hashes_of, is_sound, mixed, users_of
from schemas.predictions import KEPT_FIELD

NUMBERS = ("p_", "true_", KEPT_FIELD)  # begin the names of columns that are taken as they are

BEFORE, ROWS, SAMPLE_IDS, COUNTS = range(4)  # the kinds of blobs; the first, users of the training samples

ROWS_PER_PIECE = 1 << 19
ROWS_PER_SHARD = 1 << 20

Known = Callable[[pa.Table], Arrays]  # more columns for some rows


def num_shards(rows: int) -> int:
    """Shards of users, and of what else is dealt. It depends on the rows alone, so that two evaluations of
    the same impressions have the same shards."""
    return max(2, -(-rows // ROWS_PER_SHARD))


def packer(shards: int, known: Known | None) -> Stage:
    """For `mapInArrow` over rows as `prediction_files.read` has them, perhaps with their truth."""

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in _pieces(batches):
            for blob in blobs_of(rows, shards, known):
                yield to_batch(blob)

    return pack


def file_packer(work: list[list[Piece]], shards: int, known: Known | None) -> Stage:
    """The same for `mapInArrow` over one column of positions in `work`."""

    def pack(position: int) -> Iterator[Blob]:
        for rows in prediction_files.read(work[position]):
            yield from blobs_of(rows, shards, known)

    return at_positions(pack)


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(rows) for rows in waiting) >= ROWS_PER_PIECE:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if any(len(rows) for rows in waiting):
        yield pa.Table.from_batches(waiting)


def blobs_of(rows: pa.Table, shards: int, known: Known | None) -> Iterator[Blob]:
    """The blobs of some rows. Those that break a rule are only counted."""
    sound = is_sound(rows)
    num_broken = rows.num_rows - np.count_nonzero(sound)
    counts = {"rows": np.array([rows.num_rows]), "broken": np.array([num_broken])}
    if num_broken:
        rows = rows.filter(pa.array(sound))
    users, samples = users_of(rows), hashes_of(rows["sample_id"])
    columns = {name: rows[name].to_numpy() for name in rows.column_names if name.startswith(NUMBERS)}
    if known is not None:
        columns |= known(rows)
    columns["user"] = users
    columns["label"] = rows["click"].to_numpy() + 2 * rows["conversion"].to_numpy()
    yield Blob(COUNTS, 0, 0, counts | {"digest": digest_of(samples, columns["label"])})
    yield from deal(SAMPLE_IDS, 0, {"sample": samples}, samples % np.uint64(shards), shards)
    yield from deal(ROWS, 0, columns, users % np.uint64(shards), shards)


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
    return mixed(samples ^ (labels.astype(np.uint64) << np.uint64(60))).sum(dtype=np.uint64).reshape(1)
