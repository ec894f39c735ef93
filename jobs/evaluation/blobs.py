"""What travels between Spark's stages: named numpy arrays as one binary value, one row per blob.

A row of Spark costs a microsecond, whatever is in it; a blob holds up to a million impressions. `kind` says
what a blob holds, `part` where it goes, `origin` where it comes from.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

Arrays = dict[str, np.ndarray]
Stage = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

SPARK_SCHEMA = "kind int, part int, origin int, blob binary"
COLUMNS = pa.schema(
    [("kind", pa.int32()), ("part", pa.int32()), ("origin", pa.int32()), ("blob", pa.large_binary())]
)


class Blob(NamedTuple):
    """One row. arrays: of any lengths, one-dimensional, without nulls."""

    kind: int
    part: int
    origin: int
    arrays: Arrays


def encode(arrays: Arrays) -> bytes:
    """The arrays as an Arrow stream of one row, each of them a list."""
    lists = [
        pa.ListArray.from_arrays(np.array([0, len(values)], np.int32), pa.array(values))
        for values in arrays.values()
    ]
    batch = pa.RecordBatch.from_arrays(lists, names=list(arrays))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decode(blob: bytes | pa.Buffer) -> Arrays:
    """What `encode` was given; the arrays cannot be written to."""
    (batch,) = pa.ipc.open_stream(blob)
    return {
        name: column.flatten().to_numpy(zero_copy_only=True)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def to_batch(blob: Blob) -> pa.RecordBatch:
    """A blob as Spark takes it."""
    columns = [[blob.kind], [blob.part], [blob.origin], [encode(blob.arrays)]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, COLUMNS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=COLUMNS)


def at_positions(make: Callable[[int], Iterable[Blob]]) -> Stage:
    """For `mapInArrow` over one column of positions in a list of work: the blobs that each of them makes."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for position in batch.column(0).to_pylist():
                for blob in make(position):
                    yield to_batch(blob)

    return run


def grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, int, Iterator[Blob]]]:
    """(kind, part, their blobs) of rows that are sorted by kind and part; a group is read before the next."""
    for (kind, part), group in groupby(_blobs(batches), key=lambda blob: (blob.kind, blob.part)):
        yield kind, part, group


def _blobs(batches: Iterable[pa.RecordBatch]) -> Iterator[Blob]:
    for batch in batches:
        kinds, parts, origins = (batch.column(place).to_pylist() for place in range(3))
        for row, value in enumerate(batch.column(3)):
            yield Blob(kinds[row], parts[row], origins[row], decode(value.as_buffer()))


def joined(blobs: Iterable[Arrays]) -> Arrays:
    """Arrays of the same names, one behind the other; there is at least one blob."""
    parts = list(blobs)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def added(blobs: Iterable[Arrays]) -> Arrays:
    """The sum of arrays of the same names and shapes."""
    total: Arrays = {}
    for arrays in blobs:
        for name, values in arrays.items():
            total[name] = total[name] + values if name in total else values
    return total
