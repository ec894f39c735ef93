"""Counting samples: Arrow batches of samples in, rows of counts out.

Sums of the buckets' tokens are arrays; a row of a chunk of them costs Spark its bytes, not a row per bucket.
A row is (part, kind, field, value, count, low, high, total, tokens), field being a place in the schema and
part OURS or, of the set to compare with, RANKING or THEIRS, one half each:

    kind         count is the number of   value
    BUCKET       -                        first bucket of a chunk; tokens: int64 per bucket of the chunk
    LENGTH       owners                   how many ids each has of the field
    REACHED      impressions              0 or 1: their context has the field (user fields)
    WEIGHT       weights                  0; low, high and total are theirs (weighted fields)
    SIZE         contexts                 how many impressions each has
    ROW, CLICK, CONVERSION                0

The owner of a user field is a context, of any other field an impression. The rows of one context stand
together in one file, as jobs.build_samples writes them, so that a context's first row can be told.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cli.errors import InputError
from schemas.fields import Field
from schemas.samples import columns
from schemas.schema import Schema

OURS, RANKING, THEIRS = range(3)
BUCKET, LENGTH, REACHED, WEIGHT, SIZE, ROW, CLICK, CONVERSION = range(8)
NO_FIELD = -1

ARROW_SCHEMA = pa.schema(
    [
        ("part", pa.int8()),
        ("kind", pa.int8()),
        ("field", pa.int16()),
        ("value", pa.int64()),
        ("count", pa.int64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("total", pa.float64()),
        ("tokens", pa.binary()),
    ]
)
SPARK_SCHEMA = """part byte, kind byte, field short, value long, count long,
    low double, high double, total double, tokens binary"""

CHUNK = 4096  # buckets, 32 kB: Spark hands some hundred rows at a time to the next task

Array = np.ndarray


class Weights(NamedTuple):
    """What is known of some weights."""

    num: int
    low: float
    high: float
    total: float


def counted_columns(schema: Schema) -> list[str]:
    """The columns of the samples that a tally is made of."""
    return [column.name for column in columns(schema) if column.name not in ("user_id", "sample_id")]


class Tally:
    """What is counted of some files. Memory: 8 bytes for every bucket of every field, and a batch."""

    def __init__(self, schema: Schema) -> None:
        self._fields = schema.fields
        self._user_columns = [column for field in schema.user_fields for column in field.columns]
        self._num_tokens = [np.zeros(field.buckets, np.int64) for field in schema.fields]
        self._counts: Counter[tuple[int, int, int]] = Counter()  # (kind, field, value)
        self._weights: dict[int, Weights] = {}
        self._context: str | None = None
        self._context_size = 0

    def add(self, batch: pa.RecordBatch, path: str) -> None:
        """Count the batch of rows that follows in the file `path` on the one before."""
        if not batch.num_rows:
            return
        impressions = _lengths(batch.column("click"))
        starts = self._add_contexts(batch.column("context_id"), impressions)
        first = batch if starts.all() else batch.select(self._user_columns).filter(pa.array(starts))
        self._counts[ROW, NO_FIELD, 0] += batch.num_rows
        for kind, name in ((CLICK, "click"), (CONVERSION, "conversion")):
            self._counts[kind, NO_FIELD, 0] += int(_flat(batch.column(name)).sum(dtype=np.int64))
        for position, field in enumerate(self._fields):
            if field.per_impression:
                self._add_field(position, field, batch, path)
            else:
                self._add_reached(position, _num_ids(field, batch), impressions)
                self._add_field(position, field, first, path)

    def end_file(self) -> None:
        """No more rows of the last context."""
        if self._context is not None:
            self._counts[SIZE, NO_FIELD, self._context_size] += 1
        self._context = None
        self._context_size = 0

    def rows(self, part: int) -> Iterator[pa.RecordBatch]:
        """All counts, as batches of `ARROW_SCHEMA`."""
        keys = np.array(list(self._counts), np.int64).reshape(-1, 3)
        yield _batch(part, keys[:, 0], keys[:, 1], keys[:, 2], list(self._counts.values()))
        for position, weights in self._weights.items():
            yield _batch(part, WEIGHT, position, [0], [weights.num], (*weights[1:], None))
        for position, num_tokens in enumerate(self._num_tokens):
            num_tokens[0] = 0  # missing is not a bucket
            for begin in range(0, len(num_tokens), CHUNK):
                chunk = num_tokens[begin : begin + CHUNK]
                if chunk.any():
                    yield _batch(part, BUCKET, position, [begin], [0], (None, None, None, chunk.tobytes()))

    def _add_contexts(self, ids: pa.Array, impressions: Array) -> Array:
        """Count the contexts but the last, of which more may follow; bool [rows]: a context begins here."""
        starts = np.ones(len(ids), bool)
        starts[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        starts[0] = ids[0].as_py() != self._context
        if starts[0]:
            self.end_file()
        sizes = np.add.reduceat(impressions, np.union1d([0], np.flatnonzero(starts)))
        sizes[0] += self._context_size
        self._add(SIZE, NO_FIELD, sizes[:-1])
        self._context = ids[-1].as_py()
        self._context_size = int(sizes[-1])
        return starts

    def _add_field(self, position: int, field: Field, batch: pa.RecordBatch, path: str) -> None:
        """Count ids, how many each owner has, and weights. batch: the owners' rows."""
        ids = _flat(batch.column(field.column))
        num_tokens = self._num_tokens[position]
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(num_tokens):
            raise InputError(
                f"{path}: column {field.column}: expected buckets 0 to {len(num_tokens) - 1}, "
                f"found {ids.min()} to {ids.max()}. Build the samples again."
            )
        np.add.at(num_tokens, ids.astype(np.int64), np.int64(1))  # these two types are its fast path
        self._add(LENGTH, position, _num_ids(field, batch))
        if field.weighted:
            held = _flat(batch.column(field.weight_column))
            self._add_weights(position, held[ids != 0])

    def _add_reached(self, position: int, num_ids: Array, impressions: Array) -> None:
        reached = int(impressions[num_ids > 0].sum())
        self._counts[REACHED, position, 1] += reached
        self._counts[REACHED, position, 0] += int(impressions.sum()) - reached

    def _add(self, kind: int, position: int, values: Array) -> None:
        counts = np.bincount(values)
        for value in np.flatnonzero(counts).tolist():
            self._counts[kind, position, value] += int(counts[value])

    def _add_weights(self, position: int, weights: Array) -> None:
        if not len(weights):
            return
        before = self._weights.get(position, Weights(0, np.inf, -np.inf, 0.0))
        self._weights[position] = Weights(
            before.num + len(weights),
            min(before.low, float(weights.min())),
            max(before.high, float(weights.max())),
            before.total + float(weights.sum(dtype=np.float64)),
        )


def _num_ids(field: Field, batch: pa.RecordBatch) -> Array:
    """int64 [owners]: how many ids each context (user fields) or impression (the others) has."""
    column = batch.column(field.column)
    if not field.multi:
        return (_flat(column) != 0).astype(np.int64)
    return _flat(batch.column(field.length_column)) if field.per_impression else _lengths(column)


def _lengths(lists: pa.Array) -> Array:
    return pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)


def _flat(column: pa.Array) -> Array:
    """The values of a column, those of lists end to end."""
    values = column.flatten() if pa.types.is_list(column.type) else column
    return values.to_numpy(zero_copy_only=False)


def _batch(
    part: int,
    kinds: Array | int,
    positions: Array | int,
    values: Array | list[int],
    counts: Array | list[int],
    rest: tuple[Any, ...] = (None, None, None, None),
) -> pa.RecordBatch:
    """Rows of counts; a single number stands in every row."""
    columns = (part, kinds, positions, values, counts, *rest)
    arrays = [
        pa.array(column if isinstance(column, np.ndarray | list) else [column] * len(values), leaf)
        for column, leaf in zip(columns, ARROW_SCHEMA.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=ARROW_SCHEMA)
