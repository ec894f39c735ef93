"""A row group of the samples: its columns where Arrow has put them, checked and ready to be gathered.

Nothing is copied here. `esmm.data.assemble` copies what a batch needs, shifts ids into the fused table's row
space and makes the weights final, all in one pass.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cli.errors import InputError
from esmm.data import gather_kernel as kernel
from schemas import samples
from schemas.fields import Field
from schemas.schema import Schema

Addresses = npt.NDArray[np.int64]
Columns = dict[str, pa.Array]

KEYS = ("sample_id", "context_id", "user_id")  # columns that name an impression


@dataclass(frozen=True, eq=False)
class RowLayout:
    """What the samples' schema says of a row group, made once: not for each of them.

    with_keys: whether KEYS are read too. columns: those that a batch is made of. arrow: the same for Arrow.
    keys: KEYS of an impression. numbers: columns of the numeric fields, contexts' first, and of weights.
    num_buckets: int64 [F]. per_impression: bool [F].
    """

    schema: Schema
    with_keys: bool
    columns: tuple[samples.Column, ...]
    arrow: pa.Schema
    keys: pa.Schema
    numbers: tuple[str, ...]
    num_buckets: npt.NDArray[np.int64]
    per_impression: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, schema: Schema, with_keys: bool) -> Self:
        columns = [c for c in samples.columns(schema) if with_keys or c.name not in KEYS]
        whole = samples.arrow_schema(schema)
        return cls(
            schema=schema,
            with_keys=with_keys,
            columns=tuple(columns),
            arrow=pa.schema([whole.field(column.name) for column in columns]),
            keys=key_schema(schema),
            numbers=number_columns(schema),
            num_buckets=np.array([field.buckets for field in schema.fields]),
            per_impression=np.array([field.per_impression for field in schema.fields]),
        )

    @property
    def column_names(self) -> list[str]:
        return self.arrow.names


def number_columns(schema: Schema) -> tuple[str, ...]:
    """Columns of the numeric fields, those of contexts first; then of weights, where there are some."""
    weights = (samples.WEIGHT,) if schema.has_weights else ()
    return (*(number.column for number in schema.numbers), *weights)


def label_columns(schema: Schema) -> tuple[str, ...]:
    """Columns of the labels."""
    return ("click", "conversion", *((samples.ACTION,) if schema.has_actions else ()))


def key_schema(schema: Schema) -> pa.Schema:
    """KEYS, one value of each per impression."""
    types = {column.name: pa.type_for_alias(column.type) for column in samples.columns(schema)}
    return pa.schema([(name, types[name]) for name in KEYS])


@dataclass
class Rows:
    """R contexts with their I impressions.

    starts: int32 [R + 1]; context r owns impressions starts[r] to starts[r + 1].
    fields: int64 [F, 3], addresses of a field's ids (int32), weights (float32; 0: all are 1) and bounds
    (int32; 0: one id per owner): owner n, a context or an impression, owns values bounds[n] to
    bounds[n + 1]. labels: int64 [L], addresses of `label_columns` (int8). numbers: int64 [N], addresses
    of `number_columns` (float32, one per owner). owned: whatever holds the memory at the addresses; None: the
    row group could not be read, has no addresses, and its impressions are left out.
    keys: sample_id, context_id and user_id of each impression, only when predicting.
    """

    starts: npt.NDArray[np.int32]
    fields: Addresses
    labels: Addresses
    numbers: Addresses
    owned: Any
    keys: pa.Table | None = None

    @property
    def num_contexts(self) -> int:
        return len(self.starts) - 1

    @property
    def num_impressions(self) -> int:
        return int(self.starts[-1])


def missing_rows(num_rows: int, num_impressions: int) -> Rows:
    """In place of a row group that could not be read: the right numbers, dealt evenly, and no content."""
    starts = np.linspace(0, num_impressions, num_rows + 1).astype(np.int32)
    nothing = np.empty(0, np.int64)
    return Rows(starts, nothing.reshape(0, 3), nothing, nothing, None)


def from_table(table: pa.Table, layout: RowLayout) -> Rows:
    """One row group, as read from a file, as `Rows`.

    An `InputError` names a column that contradicts the schema or the columns beside it: lists of another
    length, ids that are no bucket, weights that are negative or no number, numbers that are infinite, labels
    that are not 0 or 1.
    """
    fields = layout.schema.fields
    columns = _read_columns(table, layout)
    starts = _offsets(columns["click"])
    labels = label_columns(layout.schema)
    for name in labels:
        _require_labels(name, columns[name], starts)
    for name in layout.numbers:
        _require_numbers(name, columns[name], starts)
    places = {name: _addresses(array) for name, array in columns.items() if name not in KEYS}
    described = np.array([_describe(field, places) for field in fields])
    bounds = np.empty((np.count_nonzero(described[:, kernel.LENGTHS]), starts[-1] + 1), np.int32)
    found, index, value = kernel.check_fields(
        described, layout.num_buckets, layout.per_impression, starts, bounds
    )
    if found != kernel.FINE:
        raise InputError(_message(found, fields[index], value))
    return Rows(
        starts=starts,
        fields=_field_addresses(described, bounds, layout.per_impression),
        labels=np.array([places[name][1] for name in labels]),
        numbers=np.array([places[name][1] for name in layout.numbers], np.int64),
        owned=(columns, bounds),  # not the table: of several chunks `columns` has made new arrays
        keys=_read_keys(columns, starts, layout.keys) if layout.with_keys else None,
    )


def _read_columns(table: pa.Table, layout: RowLayout) -> Columns:
    """Each column in one piece, of the type that the schema says, without nulls."""
    found = dict(zip(table.schema.names, table.columns, strict=True))
    columns = {}
    for name in layout.column_names:
        if name not in found:
            raise InputError(f"column {name} is missing.")
        column = found[name]
        columns[name] = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not table.schema.equals(layout.arrow):  # it may still say the same in other words
        for expected in layout.columns:
            _require_type(expected, columns[expected.name])
    return columns


def _require_type(expected: samples.Column, array: pa.Array) -> None:
    leaf = pa.type_for_alias(expected.type)
    is_list = pa.types.is_list(array.type)
    if is_list != expected.is_list or (array.type.value_type if is_list else array.type) != leaf:
        kind = f"list of {expected.type}" if expected.is_list else expected.type
        raise InputError(f"column {expected.name}: expected {kind}, found {array.type}.")
    if not expected.nullable:
        nulls = array.null_count + (array.values.null_count if is_list else 0)
        if nulls:
            raise InputError(f"column {expected.name}: expected no nulls, found {nulls}.")


def _offsets(array: pa.ListArray) -> npt.NDArray[np.int32]:
    return np.frombuffer(array.buffers()[1], np.int32, len(array) + 1)


def _require_labels(name: str, array: pa.ListArray, starts: npt.NDArray[np.int32]) -> None:
    _require_equal(name, array, starts)
    values = np.frombuffer(array.buffers()[3], np.uint8, starts[-1])
    if len(values) and values.max() > 1:
        found = values[values > 1].view(np.int8)[0]
        raise InputError(f"column {name}: expected 0 or 1, found {found}.")


def _require_numbers(name: str, array: pa.Array, starts: npt.NDArray[np.int32]) -> None:
    """Finite numbers or, where they are missing, NaN; weights are of at least 0 and never missing."""
    values = array
    if pa.types.is_list(array.type):
        _require_equal(name, array, starts)
        values = array.flatten()
    found = values.to_numpy()
    wrong = found[~(found >= 0) | np.isinf(found)] if name == samples.WEIGHT else found[np.isinf(found)]
    if len(wrong):
        expected = "numbers of at least 0" if name == samples.WEIGHT else "finite numbers"
        raise InputError(f"column {name}: expected {expected}, found {wrong[0]}.")


def _require_equal(name: str, array: pa.ListArray, starts: npt.NDArray[np.int32]) -> None:
    if not np.array_equal(_offsets(array), starts):
        raise InputError(_UNEQUAL.format(name))


def _addresses(array: pa.Array) -> tuple[int, int]:
    """Of the offsets (0 where it is no list) and of the values."""
    buffers = array.buffers()
    return (buffers[1].address if len(buffers) > 2 else 0), buffers[-1].address


def _describe(field: Field, places: dict[str, tuple[int, int]]) -> tuple[int, ...]:
    """The columns of a field in the order of `gather_kernel.IDS` and so on."""
    nowhere = (0, 0)
    id_offsets, ids = places[field.column]
    length_offsets, lengths = places[field.length_column] if field.per_impression and field.multi else nowhere
    weight_offsets, weights = places[field.weight_column] if field.weighted else nowhere
    return ids, id_offsets, lengths, length_offsets, weights, weight_offsets


def _field_addresses(
    described: Addresses, bounds: npt.NDArray[np.int32], per_impression: npt.NDArray[np.bool_]
) -> Addresses:
    """`Rows.fields`: the lists of user fields are their bounds, those of impression fields are `starts`."""
    fields = described[:, [kernel.IDS, kernel.WEIGHTS, kernel.ID_OFFSETS]]
    fields[per_impression, 2] = 0
    with_lengths = described[:, kernel.LENGTHS] != 0
    fields[with_lengths, 2] = bounds.ctypes.data + np.arange(len(bounds)) * bounds.strides[0]
    return fields


def _read_keys(columns: Columns, starts: npt.NDArray[np.int32], keys: pa.Schema) -> pa.Table:
    _require_equal("sample_id", columns["sample_id"], starts)
    contexts = pa.array(np.repeat(np.arange(len(starts) - 1), np.diff(starts)))
    of_context = [columns[name].take(contexts) for name in ("context_id", "user_id")]
    return pa.table([columns["sample_id"].flatten(), *of_context], keys)


_UNEQUAL = "column {}: its lists are not as long as those of the columns beside it."


def _message(found: int, field: Field, value: float) -> str:
    """What `gather_kernel.check_fields` found, in words."""
    if found == kernel.BAD_ID:
        return f"column {field.column}: expected buckets 0 to {field.buckets - 1}, found {value:.0f}."
    if found == kernel.BAD_WEIGHT:
        return f"column {field.weight_column}: expected numbers of at least 0, found {value}."
    if found == kernel.BAD_LENGTHS:
        return f"column {field.length_column}: does not add up to the values in {field.column}."
    columns = {
        kernel.UNEQUAL_IDS: field.column,
        kernel.UNEQUAL_LENGTHS: field.length_column,
        kernel.UNEQUAL_WEIGHTS: field.weight_column,
    }
    return _UNEQUAL.format(columns[found])
