"""The compact binary rows that travel between reader and writer: one per context record, one per
run of impressions of a context, one per quarantined line.

A blob is a sequence of little-endian 32-bit words; weights are float32 bit patterns. Fields come in
the order of `FIELDS`: a single-valued field is its bucket (0 where missing) and, if weighted, its
weight; a multi-valued field is a count, that many buckets and, if weighted, that many weights.

    context record   user_id (2 words, -1 if absent), then the user fields
    impression       sample_id (2 words), byte offset in its file (2 words),
                     click | conversion << 1, then the impression fields
    quarantined      reason code, number of bytes, the line padded with zeros to whole words

`order` is `file number << OFFSET_BITS | byte offset of the line`: sorting by (key, kind, order)
restores the order of the logs whatever the byte ranges were.
"""

from typing import TYPE_CHECKING

import numpy as np

from schemas.fields import FIELDS, IMPRESSION_FIELDS, USER_FIELDS
from schemas.hashing import field_salt

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

NUM_USER_FIELDS = len(USER_FIELDS)
NUM_FIELDS = len(FIELDS)

SHORTEST_FEATURE = len("205_7_1_")  # bytes, the separator behind it included
HISTORY_SUFFIX = "_14"
FIELD_CODES = 2000


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view: numba would compile a kernel once more for arrays that can be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


FIELD_MULTI = frozen(np.array([f.multi for f in FIELDS], dtype=np.bool_))
FIELD_WEIGHTED = frozen(np.array([f.weighted for f in FIELDS], dtype=np.bool_))


def _field_code(name: str) -> int:
    """The number in a field's name, plus 1000 for the `_14` histories: what the parser reads."""
    return int(name.removesuffix(HISTORY_SUFFIX)) + (1000 if name.endswith(HISTORY_SUFFIX) else 0)


def field_of_code() -> np.ndarray:
    """int8 [FIELD_CODES]: index in FIELDS of each code, -1 where there is no such field."""
    table = np.full(FIELD_CODES, -1, dtype=np.int8)
    for index, field in enumerate(FIELDS):
        table[_field_code(field.name)] = index
    return table


FIELD_OF_CODE = frozen(field_of_code())


def salts(hash_seed: int) -> np.ndarray:
    """uint64 [23]: the seed with which each field's ids are hashed."""
    return frozen(np.array([field_salt(f.name, hash_seed) for f in FIELDS], dtype=np.uint64))


def bucket_sizes(buckets: dict[str, int]) -> np.ndarray:
    """uint64 [23]: the size of each field's hash range."""
    return frozen(np.array([buckets[f.name] for f in FIELDS], dtype=np.uint64))


def most_words(num_lines: int, num_bytes: int) -> int:
    """No more words than this come from so many lines of so many bytes together."""
    per_line = max(CONTEXT_HEADER, IMPRESSION_HEADER) + 2 * NUM_FIELDS
    return num_lines * per_line + num_bytes // SHORTEST_FEATURE * 2


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


assert len(IMPRESSION_FIELDS) + NUM_USER_FIELDS == NUM_FIELDS and FIELDS[:NUM_USER_FIELDS] == USER_FIELDS
