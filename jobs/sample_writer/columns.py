"""From planned rows to the columns of the samples: sized, filled by the kernel, handed to Arrow uncopied."""

import numpy as np
import pyarrow as pa

from jobs.raw_logs import packed_rows
from jobs.raw_logs.packed_rows import NUM_FIELDS, frozen
from jobs.sample_writer import unpack_kernel
from jobs.sample_writer.unpack_kernel import ColumnBuffers, RowPlan
from schemas.fields import FIELDS, USER_FIELDS, Field
from schemas.samples import arrow_schema

LAYOUT = unpack_kernel.UnpackLayout(
    packed_rows.FIELD_MULTI,
    packed_rows.FIELD_WEIGHTED,
    packed_rows.NUM_USER_FIELDS,
    packed_rows.CONTEXT_HEADER,
    packed_rows.IMPRESSION_HEADER,
    packed_rows.KIND_CONTEXT,
)


def record_batch(words: np.ndarray, plan: RowPlan, first_row: int) -> pa.RecordBatch:
    """The planned rows in the layout of `schemas.samples`. first_row: how many rows came before them."""
    words = frozen(words)
    totals = unpack_kernel.count_values(LAYOUT, words, plan)
    buffers = _buffers(totals, len(plan.key), len(plan.at))
    unpack_kernel.fill_columns(LAYOUT, words, plan, first_row, buffers)
    schema = arrow_schema()
    per_row = plan.first.astype(np.int32)
    columns = _row_columns(schema, plan.key, per_row, buffers)
    for i, field in enumerate(FIELDS):
        columns |= _field_columns(schema, field, i, int(totals[i]), per_row, buffers)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _buffers(totals: np.ndarray, num_rows: int, num_impressions: int) -> ColumnBuffers:
    """Room for so many values of each field. totals: int64 [23]."""
    weighted = totals * packed_rows.FIELD_WEIGHTED
    return ColumnBuffers(
        begin=np.cumsum(totals) - totals,
        weight_begin=np.cumsum(weighted) - weighted,
        ids=np.empty(totals.sum(), np.int32),
        weights=np.empty(weighted.sum(), np.float32),
        row_ends=np.empty((NUM_FIELDS, num_rows + 1), np.int32),
        lengths=np.empty((NUM_FIELDS, num_impressions), np.int32),
        user_id=np.empty(num_rows, np.int64),
        sample_id=np.empty(num_impressions, np.int64),
        click=np.empty(num_impressions, np.int8),
        conversion=np.empty(num_impressions, np.int8),
    )


def _row_columns(
    schema: pa.Schema, keys: np.ndarray, per_row: np.ndarray, buffers: ColumnBuffers
) -> dict[str, pa.Array]:
    """What is no field: whose row it is, which impressions are in it, their labels."""
    return {
        "context_id": _hexadecimal(keys),
        "user_id": pa.array(buffers.user_id, mask=buffers.user_id < 0),
        "sample_id": _list(schema, "sample_id", per_row, buffers.sample_id),
        "click": _list(schema, "click", per_row, buffers.click),
        "conversion": _list(schema, "conversion", per_row, buffers.conversion),
    }


def _field_columns(
    schema: pa.Schema, field: Field, i: int, num_values: int, per_row: np.ndarray, buffers: ColumnBuffers
) -> dict[str, pa.Array]:
    """The columns of the i-th field: its values, with their numbers and weights where it has these."""
    offsets = buffers.row_ends[i] if field.multi else per_row
    values = buffers.ids[buffers.begin[i] :][:num_values]
    is_scalar = field in USER_FIELDS and not field.multi
    columns = {field.column: pa.array(values) if is_scalar else _list(schema, field.column, offsets, values)}
    if field.multi and field.per_impression:
        columns[field.length_column] = _list(schema, field.length_column, per_row, buffers.lengths[i])
    if field.weighted:
        weights = buffers.weights[buffers.weight_begin[i] :][:num_values]
        columns[field.weight_column] = _list(schema, field.weight_column, offsets, weights)
    return columns


def _list(schema: pa.Schema, name: str, offsets: np.ndarray, values: np.ndarray) -> pa.Array:
    kind = schema.field(name).type
    leaf = pa.Array.from_buffers(kind.value_type, len(values), [None, pa.py_buffer(values)])
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets)], children=[leaf])


def _hexadecimal(keys: np.ndarray) -> pa.Array:
    """Each key as 16 hexadecimal digits."""
    text = keys.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, 16 * len(keys) + 1, 16, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
