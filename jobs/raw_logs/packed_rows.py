"""The compact binary rows that travel between reader and writer: one per context record, one per
run of impressions of a context, one per quarantined line.

A blob is a sequence of little-endian 32-bit words; weights are float32 bit patterns. Fields come in
the order of the schema: a single-valued field is its bucket (0 where missing) and, if weighted, its
weight; a multi-valued field is a count, that many buckets and, if weighted, that many weights. `slots` says
what else there may be.

    context record   user_id (2 words, -1 if absent), then texts and the user fields
    impression       sample_id (2 words; of one that is text half of its hash), byte offset in its file
                     (2 words), click | conversion << 1 | action << 2, then texts and the impression fields
    quarantined      reason code, number of bytes, the line padded with zeros to whole words

`order` is `file number << OFFSET_BITS | byte offset of the line`: sorting by (key, kind, order)
restores the order of the logs whatever the byte ranges were. Rows of tables have no place in a file: there
`order` is the hash of a context's row, and an impression's sample_id.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.fields import Field
from schemas.hashing import field_salt
from schemas.samples import WEIGHT
from schemas.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

SPARK_SCHEMA = "key bigint, kind tinyint, order bigint, blob binary"
PART_COLUMN = 4  # where the writer finds which part of the samples a row belongs to

KIND_CONTEXT = 0
KIND_IMPRESSIONS = 1
KIND_QUARANTINED = 2

CONTEXTS, IMPRESSIONS = 0, 1  # the numbers of tables, where those of files stand in `order`

OFFSET_BITS = 44
OFFSET_MASK = (1 << OFFSET_BITS) - 1

CONTEXT_HEADER = 2
IMPRESSION_HEADER = 5


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view: numba would compile a kernel once more for arrays that can be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


class Slot(NamedTuple):
    """What a packed row has one after the other: a field, a number, or a text that belongs to the row itself.

    name: of the field, or of the column of the samples that number or text goes to. A text is a multi-valued
    slot of words: none where there is no text, else the number of bytes and then these, padded with zeros. A
    number is one word, the bits of a float32.
    """

    name: str
    multi: bool
    weighted: bool
    is_text: bool = False
    is_number: bool = False


@lru_cache(maxsize=8)
def slots(schema: Schema) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
    """What context records have, and what impressions have: texts, the fields of the schema, then numbers."""
    of_contexts = [name for name in ("context_id",) if schema.tables]
    of_contexts += [name for name in ("user_id",) if schema.user_id_type == "string"]
    of_impressions = [name for name in ("sample_id",) if schema.sample_id_type == "string"]
    weights = [WEIGHT] if schema.has_weights else []
    return (
        _slots(of_contexts, schema.user_fields, [number.column for number in schema.user_numbers]),
        _slots(
            of_impressions,
            schema.impression_fields,
            weights + [number.column for number in schema.impression_numbers],
        ),
    )


def _slots(texts: list[str], fields: tuple[Field, ...], numbers: list[str]) -> tuple[Slot, ...]:
    return (
        *(Slot(name, multi=True, weighted=False, is_text=True) for name in texts),
        *(Slot(field.name, field.multi, field.weighted) for field in fields),
        *(Slot(name, multi=False, weighted=False, is_number=True) for name in numbers),
    )


class SlotArrays(NamedTuple):
    """The S slots of a schema, those of contexts first, as kernels take them.

    multi, weighted, is_text: bool [S], read-only.
    """

    multi: np.ndarray
    weighted: np.ndarray
    is_text: np.ndarray
    num_context_slots: int


@lru_cache(maxsize=8)
def slot_arrays(schema: Schema) -> SlotArrays:
    """The slots of a schema as kernels take them."""
    of_contexts, of_impressions = slots(schema)
    every = (*of_contexts, *of_impressions)
    return SlotArrays(
        frozen(np.array([slot.multi for slot in every])),
        frozen(np.array([slot.weighted for slot in every])),
        frozen(np.array([slot.is_text for slot in every])),
        len(of_contexts),
    )


def salts(schema: Schema, hash_seed: int) -> np.ndarray:
    """uint64 [F]: the seed with which each field's ids are hashed."""
    return frozen(np.array([field_salt(field.name, hash_seed) for field in schema.fields], np.uint64))


def bucket_sizes(schema: Schema) -> np.ndarray:
    """uint64 [F]: the size of each field's hash range."""
    return frozen(np.array([field.buckets for field in schema.fields], np.uint64))


def arrow_schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([("key", pa.int64()), ("kind", pa.int8()), ("order", pa.int64()), ("blob", pa.binary())])


def record_batch(
    keys: np.ndarray, kinds: np.ndarray, orders: np.ndarray, starts: np.ndarray, words: np.ndarray
) -> "pa.RecordBatch":
    """Rows as Arrow; blob i is words[starts[i] : starts[i + 1]]. Copies nothing."""
    import pyarrow as pa

    num_rows = len(keys)
    offsets = (starts * 4).astype(np.int32)
    blob = pa.Array.from_buffers(pa.binary(), num_rows, [None, pa.py_buffer(offsets), pa.py_buffer(words)])
    return pa.RecordBatch.from_arrays(
        [pa.array(keys), pa.array(kinds), pa.array(orders), blob], schema=arrow_schema()
    )
