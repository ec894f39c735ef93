"""From planned rows to the columns of the samples: sized, filled by the kernel, handed to Arrow uncopied."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.raw_logs import packed_rows
from jobs.raw_logs.packed_rows import frozen, slot_arrays, slots
from jobs.sample_writer import unpack_kernel
from jobs.sample_writer.unpack_kernel import ColumnBuffers, RowPlan
from schemas.fields import Field
from schemas.samples import ACTION, arrow_schema
from schemas.schema import Schema


def unpack_layout(schema: Schema) -> unpack_kernel.UnpackLayout:
    """What the kernels must know."""
    return unpack_kernel.UnpackLayout(
        *slot_arrays(schema),
        schema.tables is not None,
        packed_rows.CONTEXT_HEADER,
        packed_rows.IMPRESSION_HEADER,
        packed_rows.KIND_CONTEXT,
    )


def record_batch(schema: Schema, words: np.ndarray, plan: RowPlan, first_row: int) -> pa.RecordBatch:
    """The planned rows in the layout of `schemas.samples`. first_row: how many rows came before them."""
    words = frozen(words)
    layout = unpack_layout(schema)
    totals = unpack_kernel.count_values(layout, words, plan)
    buffers = _buffers(totals, totals * layout.weighted, len(plan.key), len(plan.at))
    unpack_kernel.fill_columns(layout, words, plan, first_row, buffers)
    types = arrow_schema(schema)
    per_row = plan.first.astype(np.int32)
    columns = _row_columns(types, plan.key, per_row, buffers)
    fields = {field.name: field for field in schema.fields}
    of_contexts, of_impressions = slots(schema)
    for i, slot in enumerate((*of_contexts, *of_impressions)):
        if slot.is_text:
            columns[slot.name] = _texts(types, slot.name, i, per_row, buffers)
        elif slot.is_number:
            numbers = buffers.ids[buffers.begin[i] :][: totals[i]].view(np.float32)
            columns[slot.name] = _column(types, slot.name, per_row, numbers)
        else:
            columns |= _field_columns(types, fields[slot.name], i, int(totals[i]), per_row, buffers)
    return pa.RecordBatch.from_arrays([columns[name] for name in types.names], schema=types)


def _buffers(totals: np.ndarray, weighted: np.ndarray, num_rows: int, num_impressions: int) -> ColumnBuffers:
    """Room for so many values, and weights, of each field. totals, weighted: int64 [F]."""
    return ColumnBuffers(
        begin=np.cumsum(totals) - totals,
        weight_begin=np.cumsum(weighted) - weighted,
        ids=np.empty(totals.sum(), np.int32),
        weights=np.empty(weighted.sum(), np.float32),
        row_ends=np.empty((len(totals), num_rows + 1), np.int32),
        lengths=np.empty((len(totals), num_impressions), np.int32),
        user_id=np.empty(num_rows, np.int64),
        sample_id=np.empty(num_impressions, np.int64),
        click=np.empty(num_impressions, np.int8),
        conversion=np.empty(num_impressions, np.int8),
        action=np.empty(num_impressions, np.int8),
    )


def _row_columns(
    types: pa.Schema, keys: np.ndarray, per_row: np.ndarray, buffers: ColumnBuffers
) -> dict[str, pa.Array]:
    """What is no field: which impressions are in a row, their labels, and ids that are no text."""
    ids = {}
    if types.field("user_id").type == pa.int64():
        ids["user_id"] = pa.array(buffers.user_id, mask=buffers.user_id < 0)
    if types.field("sample_id").type.value_type == pa.int64():
        ids["sample_id"] = _list(types, "sample_id", per_row, buffers.sample_id)
    labels = {"click": buffers.click, "conversion": buffers.conversion, ACTION: buffers.action}
    found = {
        name: _list(types, name, per_row, values) for name, values in labels.items() if name in types.names
    }
    return {**ids, "context_id": _hexadecimal(keys), **found}


def _field_columns(
    types: pa.Schema, field: Field, i: int, num_values: int, per_row: np.ndarray, buffers: ColumnBuffers
) -> dict[str, pa.Array]:
    """The columns of the i-th field: its values, with their numbers and weights where it has these."""
    offsets = buffers.row_ends[i] if field.multi else per_row
    values = buffers.ids[buffers.begin[i] :][:num_values]
    columns = {field.column: _column(types, field.column, offsets, values)}
    if field.multi and field.per_impression:
        columns[field.length_column] = _list(types, field.length_column, per_row, buffers.lengths[i])
    if field.weighted:
        weights = buffers.weights[buffers.weight_begin[i] :][:num_values]
        columns[field.weight_column] = _column(types, field.weight_column, offsets, weights)
    return columns


def _column(types: pa.Schema, name: str, offsets: np.ndarray, values: np.ndarray) -> pa.Array:
    """A list per row, or one value where the column has that."""
    is_list = pa.types.is_list(types.field(name).type)
    return _list(types, name, offsets, values) if is_list else pa.array(values)


def _list(types: pa.Schema, name: str, offsets: np.ndarray, values: np.ndarray) -> pa.Array:
    kind = types.field(name).type
    leaf = pa.Array.from_buffers(kind.value_type, len(values), [None, pa.py_buffer(values)])
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets)], children=[leaf])


def _texts(types: pa.Schema, name: str, i: int, per_row: np.ndarray, buffers: ColumnBuffers) -> pa.Array:
    """The texts of a slot: one for each row, or a list of those of its impressions."""
    per_impression = pa.types.is_list(types.field(name).type)
    ends = np.append(0, np.cumsum(buffers.lengths[i])) if per_impression else buffers.row_ends[i]
    words = buffers.ids[buffers.begin[i] :]
    offsets, data = unpack_kernel.texts(words, ends.astype(np.int64))
    missing = pa.array(np.diff(ends) == 0)
    found = pa.Array.from_buffers(pa.string(), len(missing), [None, *map(pa.py_buffer, (offsets, data))])
    if per_impression:
        return pa.ListArray.from_arrays(pa.array(per_row), found).cast(types.field(name).type)
    return pc.if_else(missing, None, found) if types.field(name).nullable else found


def _hexadecimal(keys: np.ndarray) -> pa.Array:
    """Each key as 16 hexadecimal digits."""
    text = keys.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, 16 * len(keys) + 1, 16, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
