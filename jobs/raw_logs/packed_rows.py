"""The compact binary rows that travel between reader and writer: one per context record, one per
run of impressions of a context, one per quarantined line.

A blob is a sequence of little-endian 32-bit words; weights are float32 bit patterns. Fields come in
the order of the schema: a single-valued field is its bucket (0 where missing) and, if weighted, its
weight; a multi-valued field is a count, that many buckets and, if weighted, that many weights.

    context record   user_id (2 words, -1 if absent), then the user fields
    impression       sample_id (2 words), byte offset in its file (2 words),
                     click | conversion << 1, then the impression fields
    quarantined      reason code, number of bytes, the line padded with zeros to whole words

`order` is `file number << OFFSET_BITS | byte offset of the line`: sorting by (key, kind, order)
restores the order of the logs whatever the byte ranges were.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.hashing import field_salt
from schemas.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

SPARK_SCHEMA = "key bigint, kind tinyint, order bigint, blob binary"
PART_COLUMN = 4  # where the writer finds which part of the samples a row belongs to

KIND_CONTEXT = 0
KIND_IMPRESSIONS = 1
KIND_QUARANTINED = 2

OFFSET_BITS = 44
OFFSET_MASK = (1 << OFFSET_BITS) - 1

CONTEXT_HEADER = 2
IMPRESSION_HEADER = 5


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view: numba would compile a kernel once more for arrays that can be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


class PackedFields(NamedTuple):
    """What packing needs of the F fields of a schema, in their order; those of the user come first.

    multi, weighted: bool [F], read-only.
    """

    multi: np.ndarray
    weighted: np.ndarray
    num_user_fields: int


@lru_cache(maxsize=8)
def packed_fields(schema: Schema) -> PackedFields:
    """The fields of a schema as they are packed."""
    return PackedFields(
        frozen(np.array([field.multi for field in schema.fields])),
        frozen(np.array([field.weighted for field in schema.fields])),
        len(schema.user_fields),
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
