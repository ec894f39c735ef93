"""What rows of a table have in a field: hashes of ids, and as much of each list as the schema says."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.raw_logs.packed_rows import frozen
from jobs.raw_tables import hash_kernel
from jobs.raw_tables.checks import lengths, missing
from jobs.raw_tables.truncate import kept
from schemas.fields import Field

Array = npt.NDArray[Any]
NO_DATA = pa.py_buffer(b"")
NO_WEIGHTS = np.empty(0, np.float32)


class FieldValues(NamedTuple):
    """What N rows have in one field. hashes: uint64 [T]; present: bool [T], False where the id is missing and
    its hash means nothing; weights: float32 [T], 0 for a missing id, none where the field has none; ends:
    int64 [N + 1]; row n of a multi-valued field has the values ends[n] to ends[n + 1], of any other one
    value n."""

    hashes: Array
    present: Array
    weights: Array
    ends: Array


def field_values(columns: Mapping[str, pa.Array], place: int, field: Field, salt: np.uint64) -> FieldValues:
    """The values of good rows. columns: as `jobs.raw_tables.columns` names them; place: the field's."""
    ids = columns[f"ids_{place}"]
    elements = ids.flatten() if field.multi else ids
    present = ~missing(elements)
    weights = _weights(columns.get(f"weights_{place}"), present, field.multi)
    return _truncated(FieldValues(hash_ids(elements, salt), present, weights, _ends(ids, field.multi)), field)


def hash_ids(ids: pa.Array, salt: np.uint64) -> Array:
    """uint64 [N]: hashes of numbers or texts; anything where they are missing."""
    if pa.types.is_string(ids.type):
        return cast(Array, hash_kernel.hash_texts(*text_buffers(ids), salt))
    return cast(Array, hash_kernel.hash_numbers(ids.fill_null(0).to_numpy(zero_copy_only=False), salt))


def text_buffers(texts: pa.Array) -> tuple[Array, Array]:
    """Data uint8 and offsets int32 [N + 1] of an array of strings."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return frozen(np.frombuffer(data or NO_DATA, np.uint8)), frozen(bounds)


def _weights(weights: pa.Array | None, present: Array, multi: bool) -> Array:
    if weights is None:
        return NO_WEIGHTS
    values = (weights.flatten() if multi else weights).fill_null(0).to_numpy(zero_copy_only=False)
    return np.where(present, values, np.float32(0))


def _ends(ids: pa.Array, multi: bool) -> Array:
    return np.append(0, np.cumsum(lengths(ids))) if multi else np.zeros(len(ids) + 1, np.int64)


def _truncated(values: FieldValues, field: Field) -> FieldValues:
    most = field.max_length
    if most is None or not (np.diff(values.ends) > most).any():
        return values
    stays, ends = kept(values.ends, values.weights, most, field.keep)
    weights = values.weights[stays] if field.weighted else values.weights
    return FieldValues(values.hashes[stays], values.present[stays], weights, ends)
