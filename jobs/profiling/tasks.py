"""The tasks of jobs.profile_samples: which files they read, and how. For `mapInArrow`."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from jobs.profiling.tally import OURS, RANKING, THEIRS, Tally, counted_columns
from jobs.sample_files import read_batches
from schemas.hashing import SPARK_SEED, xxh64
from schemas.schema import Schema

HALVES_SEED = xxh64(b"profile", SPARK_SEED)

Batches = Iterator[pa.RecordBatch]
Task = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


class Work(NamedTuple):
    """The files of one task, all of the samples (ours) or all of those they are compared with."""

    ours: bool
    files: tuple[str, ...]


def counter_of(work: list[Work], schema: Schema) -> Task:
    """For `mapInArrow` over one column of positions in `work`: counts of that work's files."""
    columns = counted_columns(schema)

    def count(batches: Iterable[pa.RecordBatch]) -> Batches:
        for position in _positions(batches):
            parts = (OURS,) if work[position].ours else (RANKING, THEIRS)
            tallies = [Tally(schema) for _ in parts]
            for path in work[position].files:
                for batch in read_batches(path, columns):
                    for tally, rows in zip(tallies, _split(batch, len(parts)), strict=True):
                        tally.add(rows, path)
                for tally in tallies:
                    tally.end_file()
            for part, tally in zip(parts, tallies, strict=True):
                yield from tally.rows(part)

    return count


def sample_ids_of(work: list[Work]) -> Task:
    """For `mapInArrow` over one column of positions in `work`: every sample_id of that work's files."""

    def read(batches: Iterable[pa.RecordBatch]) -> Batches:
        for position in _positions(batches):
            for path in work[position].files:
                for batch in read_batches(path, ["sample_id"]):
                    yield pa.RecordBatch.from_arrays([batch.column("sample_id").flatten()], ["sample_id"])

    return read


def _positions(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()


def _split(batch: pa.RecordBatch, parts: int) -> list[pa.RecordBatch]:
    """The batch whole, or as two halves by context, so that no context is cut."""
    if parts == 1:
        return [batch]
    ranking = pa.array([half_of(i) == RANKING for i in batch.column("context_id").to_pylist()], pa.bool_())
    return [batch.filter(ranking), batch.filter(pc.invert(ranking))]


def half_of(context_id: str) -> int:
    """RANKING or THEIRS by a hash, as ids may be counters or multiples of something.

    Spark's `xxhash64('profile', context_id) & 1`: 1 is RANKING. No other cut of the contexts uses it.
    """
    return RANKING if xxh64(context_id.encode(), HALVES_SEED) & 1 else THEIRS
