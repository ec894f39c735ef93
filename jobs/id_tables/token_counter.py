"""How often each id occurs in what one task reads, in memory that does not grow.

A task counts in a table of fixed size, which it hands over whenever it is full, and at the end: an id
can come several times, to be summed. Two more fields, below 0, count the lines, of tables the rows.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

SPARK_SCHEMA = "field smallint, id bigint, count bigint"
GOOD_LINES, BROKEN_LINES = -1, -2  # no fields: as if every line had an id 0 of one of them
SLOTS = 1 << 22  # 64 MB; at most half of them in use
BATCH_ROWS = 1 << 18


class TokenCounter:
    """Counts tokens: int32 [n, 3], each the place of a field and the low and the high word of an id."""

    def __init__(self, num_slots: int = SLOTS) -> None:
        self._slots = np.zeros((num_slots, 2), np.int64)
        self._shift = np.uint64(64 - (num_slots - 1).bit_length())
        self._used = 0
        self._lines = np.zeros(2, np.int64)  # good, broken

    def add(self, tokens: np.ndarray) -> Iterator["pa.RecordBatch"]:
        """Count some; yields the counts so far where there are too many different ids."""
        from jobs.id_tables.count_kernel import count_ids

        done = 0
        while done < len(tokens):
            done, self._used = count_ids(
                tokens, done, self._slots, self._shift, self._used, len(self._slots) // 2
            )
            if done < len(tokens):
                yield from self._take()

    def add_lines(self, good: int, broken: int) -> None:
        """Count lines."""
        self._lines += [good, broken]

    def finish(self) -> Iterator["pa.RecordBatch"]:
        """The remaining counts, and those of the lines."""
        yield from self._take()
        yield _batch(np.array([GOOD_LINES, BROKEN_LINES], np.int16), np.zeros(2, np.int64), self._lines)

    def _take(self) -> Iterator["pa.RecordBatch"]:
        from jobs.id_tables.count_kernel import FIELD_BITS, FIELD_MASK

        filled = self._slots[self._slots[:, 1] != 0]
        self._slots[:] = 0
        self._used = 0
        for begin in range(0, len(filled), BATCH_ROWS):
            rows = filled[begin : begin + BATCH_ROWS]
            fields = (rows[:, 1] & FIELD_MASK).astype(np.int16)
            yield _batch(fields, rows[:, 0].copy(), rows[:, 1] >> FIELD_BITS)


def _batch(fields: np.ndarray, feature_ids: np.ndarray, counts: np.ndarray) -> "pa.RecordBatch":
    import pyarrow as pa

    columns = {"field": fields, "id": feature_ids, "count": counts}
    return pa.RecordBatch.from_pydict(columns)
