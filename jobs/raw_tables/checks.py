"""Which rows of a table can't be used, and why: reasons of `schemas.raw_log`, for whole batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.fields import Field
from schemas.raw_log import QUARANTINE_REASONS
from schemas.samples import ACTION, WEIGHT
from schemas.schema import Schema

LONGEST_ID = 1 << 20  # bytes
Rows = npt.NDArray[np.bool_]


def find_reasons(batch: pa.RecordBatch, schema: Schema) -> npt.NDArray[np.int8]:
    """int8 [N]: the code of the first reason that holds for each row, 0 for a good one.

    The batch has the columns of `jobs.raw_tables.columns`.
    """
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    found = np.zeros(batch.num_rows, np.int8)
    for reason, broken in _judgements(columns, schema):
        if broken.any():
            found[(found == 0) & broken] = QUARANTINE_REASONS.index(reason)
    return found


def _judgements(columns: dict[str, pa.Array], schema: Schema) -> Iterator[tuple[str, Rows]]:
    yield "null_key", missing(columns["key"])
    yield "id_too_long", _too_long(columns["key"])
    if "sample" in columns:
        yield "null_key", missing(columns["sample"])
        yield "id_too_long", _too_long(columns["sample"])
        yield "bad_number", _negative(columns["sample"])
        yield from _judge_labels(columns)
    for place, field in enumerate(schema.fields):
        ids = columns.get(f"ids_{place}")
        if ids is not None:
            if field.name == schema.user_id and schema.user_id_type == "int64":
                yield "bad_number", _negative(ids)
            yield from _judge_field(field, ids, columns.get(f"weights_{place}"))
    for number in schema.numbers:
        if number.column in columns:
            yield "bad_number", ~np.isfinite(_to_numpy(columns[number.column].fill_null(0)))
    if WEIGHT in columns:
        yield "bad_weight", _no_weights(columns[WEIGHT])


def _judge_labels(columns: dict[str, pa.Array]) -> Iterator[tuple[str, Rows]]:
    names = [name for name in ("click", "conversion", ACTION) if name in columns]
    labels = {name: _to_numpy(columns[name].fill_null(-1)) for name in names}
    for label in labels.values():
        yield "bad_label", (label < 0) | (label > 1)
    click, *others = labels.values()
    for reason, label in zip(("conversion_without_click", "action_without_click"), others, strict=False):
        yield reason, label > click


def _judge_field(field: Field, ids: pa.Array, weights: pa.Array | None) -> Iterator[tuple[str, Rows]]:
    if not field.multi:
        yield "id_too_long", _too_long(ids)
        if weights is not None:
            yield "bad_weight", _no_weights(weights) & ~missing(ids)
        return
    elements = ids.flatten()
    yield "empty_id", _any_of(ids, missing(elements))
    yield "id_too_long", _any_of(ids, _too_long(elements))
    if weights is not None:
        yield "lengths_differ", lengths(ids) != lengths(weights)
        yield "bad_weight", _any_of(weights, _no_weights(weights.flatten()))


def missing(ids: pa.Array) -> Rows:
    """Which ids are null or the empty text."""
    is_missing = ids.is_null()
    if pa.types.is_string(ids.type):
        is_missing = pc.or_(is_missing, pc.equal(pc.binary_length(ids), 0).fill_null(True))
    return _to_numpy(is_missing)


def lengths(lists: pa.Array) -> npt.NDArray[np.int64]:
    """How many elements each list has; a null list has none."""
    return _to_numpy(lists.value_lengths().fill_null(0)).astype(np.int64)


def _to_numpy(array: Any) -> npt.NDArray[Any]:
    return array.to_numpy(zero_copy_only=False)


def _too_long(ids: pa.Array) -> Rows:
    if not pa.types.is_string(ids.type):
        return np.zeros(len(ids), np.bool_)
    return _to_numpy(pc.binary_length(ids).fill_null(0)) > LONGEST_ID


def _negative(ids: pa.Array) -> Rows:
    if not pa.types.is_integer(ids.type):
        return np.zeros(len(ids), np.bool_)
    return _to_numpy(ids.fill_null(0)) < 0


def _no_weights(weights: pa.Array) -> Rows:
    values = _to_numpy(weights.fill_null(np.nan))
    return ~((values >= 0) & (values < np.inf))


def _any_of(lists: pa.Array, elements: Rows) -> Rows:
    """Which lists have such an element. elements: of all lists, end to end."""
    if not elements.any():
        return np.zeros(len(lists), np.bool_)
    before = np.append(0, np.cumsum(elements))
    ends = np.cumsum(lengths(lists))
    return before[ends] > before[ends - lengths(lists)]
