"""A row group of the samples as flat arrays, in the layout of a batch from the start.

Ids are already in the fused table's row space and weights final, so that all that follows
(`esmm.assemble`) only copies ranges. No object per row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from esmm.batch import field_offsets
from schemas import samples
from schemas.errors import InputError
from schemas.fields import IMPRESSION_FIELDS, USER_FIELDS, Field

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Columns = dict[str, pa.ChunkedArray]

KEY_COLUMNS = ("sample_id", "context_id", "user_id")
_COLUMNS = {column.name: column for column in samples.COLUMNS}


@dataclass
class FlatBags:
    """`esmm.batch.Bags` as numpy arrays: ids int64 [T], weights float32 [T], offsets int64 [F*N + 1]."""

    ids: IntArray
    weights: FloatArray
    offsets: IntArray


@dataclass
class Rows:
    """R contexts with their I impressions.

    starts: int64 [R + 1]; context r owns impressions starts[r] to starts[r + 1]. click, conversion:
    float32 [I]. user: bags for R contexts. impression: bags for I impressions.
    sample_id int64 [I] and keys (context_id, user_id; R rows): only when predicting.
    """

    starts: IntArray
    click: FloatArray
    conversion: FloatArray
    user: FlatBags
    impression: FlatBags
    sample_id: IntArray | None = None
    keys: pa.Table | None = None

    @property
    def num_contexts(self) -> int:
        return len(self.starts) - 1

    @property
    def num_impressions(self) -> int:
        return len(self.click)


def column_names(with_keys: bool) -> list[str]:
    """The columns of the samples that a batch is made of."""
    return [name for name in _COLUMNS if with_keys or name not in KEY_COLUMNS]


def empty_rows(with_keys: bool) -> Rows:
    """No contexts, no impressions: the batch of a rank that has run out of them."""

    def bags() -> FlatBags:
        return FlatBags(np.empty(0, np.int64), np.empty(0, np.float32), np.zeros(1, np.int64))

    schema = samples.arrow_schema()
    return Rows(
        starts=np.zeros(1, np.int64),
        click=np.empty(0, np.float32),
        conversion=np.empty(0, np.float32),
        user=bags(),
        impression=bags(),
        sample_id=np.empty(0, np.int64) if with_keys else None,
        keys=pa.schema([schema.field("context_id"), schema.field("user_id")]).empty_table()
        if with_keys
        else None,
    )


@dataclass
class _Column:
    """values: all values end to end. offsets: int64 [R + 1], which of them are row r's."""

    values: npt.NDArray[Any]
    offsets: IntArray


@dataclass
class _FieldValues:
    """One field of N owners: buckets int32 [T], weights float32 [T] or None, offsets int64 [N + 1]."""

    field: Field
    ids: npt.NDArray[np.int32]
    weights: FloatArray | None
    offsets: IntArray


def from_table(table: pa.Table, buckets: dict[str, int], with_keys: bool) -> Rows:
    """One row group as `Rows`; columns that contradict the schema or each other are an `InputError`."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    click = _read_column(columns, "click")
    starts = click.offsets
    conversion = _parallel(columns, "conversion", starts).values
    user = [_user_field(columns, field) for field in USER_FIELDS]
    impression = [_impression_field(columns, field, starts) for field in IMPRESSION_FIELDS]
    return Rows(
        starts=starts,
        click=click.values.astype(np.float32),
        conversion=conversion.astype(np.float32),
        user=_make_bags(user, buckets),
        impression=_make_bags(impression, buckets),
        sample_id=_parallel(columns, "sample_id", starts).values if with_keys else None,
        keys=table.select(["context_id", "user_id"]) if with_keys else None,
    )


def _read_column(columns: Columns, name: str) -> _Column:
    expected = _COLUMNS[name]
    if name not in columns:
        raise InputError(f"column {name} is missing.")
    column = columns[name]
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    leaf = pa.type_for_alias(expected.type)
    is_list = pa.types.is_list(array.type)
    if is_list != expected.is_list or (array.type.value_type if is_list else array.type) != leaf:
        kind = f"list of {expected.type}" if expected.is_list else expected.type
        raise InputError(f"column {name}: expected {kind}, found {array.type}.")
    flat = array.values if is_list else array
    if array.null_count or flat.null_count:
        raise InputError(f"column {name}: expected no nulls, found {array.null_count + flat.null_count}.")
    if not is_list:
        return _Column(flat.to_numpy(), np.arange(len(flat) + 1))
    offsets = array.offsets.to_numpy().astype(np.int64)
    return _Column(flat.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0])


def _parallel(columns: Columns, name: str, offsets: IntArray) -> _Column:
    """A column whose lists must be as long as those of another one."""
    column = _read_column(columns, name)
    if not np.array_equal(column.offsets, offsets):
        raise InputError(f"column {name}: its lists are not as long as those of the columns beside it.")
    return column


def _user_field(columns: Columns, field: Field) -> _FieldValues:
    column = _read_column(columns, field.column)
    weights = _parallel(columns, field.weight_column, column.offsets).values if field.weighted else None
    return _FieldValues(field, column.values, weights, column.offsets)


def _impression_field(columns: Columns, field: Field, starts: IntArray) -> _FieldValues:
    if not field.multi:
        column = _parallel(columns, field.column, starts)
        offsets = np.arange(len(column.values) + 1)
    else:
        column = _read_column(columns, field.column)
        lengths = _parallel(columns, field.length_column, starts).values
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        if (len(lengths) and lengths.min() < 0) or not np.array_equal(offsets[starts], column.offsets):
            raise InputError(
                f"column {field.length_column}: does not add up to the values in {field.column}."
            )
    weights = _parallel(columns, field.weight_column, column.offsets).values if field.weighted else None
    return _FieldValues(field, column.values, weights, offsets)


def _make_bags(parts: list[_FieldValues], buckets: dict[str, int]) -> FlatBags:
    """Field after field in one array, ids shifted into the fused table, weights final."""
    table_start = field_offsets(buckets)
    num_owners = len(parts[0].offsets) - 1
    total = sum(len(part.ids) for part in parts)
    ids, weights = np.empty(total, np.int64), np.ones(total, np.float32)
    offsets = np.zeros(len(parts) * num_owners + 1, np.int64)
    low = 0
    for index, part in enumerate(parts):
        high = low + len(part.ids)
        _check_buckets(part, buckets[part.field.name])
        np.add(part.ids, table_start[part.field.name], out=ids[low:high])
        if part.weights is not None:
            weights[low:high] = part.weights
        # A list says how interest divides among its ids: a weighted mean, whatever its length. A cross
        # field says how often this user met this very category or shop: the value is the signal, so a sum.
        if part.field.multi and part.field.side != "cross":
            normalise_bags(weights[low:high], part.offsets)
        offsets[index * num_owners + 1 : (index + 1) * num_owners + 1] = part.offsets[1:] + low
        low = high
    return FlatBags(ids, weights, offsets)


def _check_buckets(part: _FieldValues, buckets: int) -> None:
    if not len(part.ids):
        return
    low, high = int(part.ids.min()), int(part.ids.max())
    if low < 0 or high >= buckets:
        found = low if low < 0 else high
        raise InputError(f"column {part.field.column}: expected buckets 0 to {buckets - 1}, found {found}.")


@njit(cache=True, nogil=True)
def normalise_bags(weights: FloatArray, offsets: IntArray) -> None:
    """Divide the weights of each bag by their sum, in place; a bag whose weights are all zero stays so."""
    for bag in range(len(offsets) - 1):
        total = 0.0
        for i in range(offsets[bag], offsets[bag + 1]):
            total += weights[i]
        if total > 0.0:
            scale = 1.0 / total
            for i in range(offsets[bag], offsets[bag + 1]):
                weights[i] = weights[i] * scale
