"""The ids of the raw logs as a Spark data source: how often each occurs in a part of a byte range.

A task counts in a table of fixed size, which it hands over whenever it is full, and at the end: an id
can come several times, to be summed. Two more fields, below 0, count the lines.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import StructType

from jobs.python_worker import freeze_imports
from jobs.raw_logs.chunks import Chunk
from jobs.raw_logs.files import files_from_json
from jobs.raw_logs.source import LogRange, parse, parse_layout, read_range, split_ranges
from schemas.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

SPARK_SCHEMA = "field smallint, id bigint, count bigint"
GOOD_LINES, BROKEN_LINES = -1, -2  # no fields: as if every line had an id 0 of one of them
SLOTS = 1 << 22  # 64 MB; at most half of them in use
BATCH_ROWS = 1 << 18


class IdCounter:
    """Counts the ids of chunks of one side of the logs, in memory that does not grow."""

    def __init__(self, common: bool, schema: Schema, num_slots: int = SLOTS) -> None:
        self._common = common
        self._layout = parse_layout(schema, hash_seed=0, only_ids=True)
        self._slots = np.zeros((num_slots, 2), np.int64)
        self._shift = np.uint64(64 - (num_slots - 1).bit_length())
        self._used = 0
        self._lines = np.zeros(2, np.int64)  # good, broken

    def add(self, chunk: Chunk) -> Iterator["pa.RecordBatch"]:
        """Count a chunk's ids; the counts so far where there are too many different ones."""
        from jobs.id_tables.count_kernel import count_ids

        if chunk.too_long:
            self._lines[1] += 1
            return
        lines = chunk.lines + b"\n" if chunk.unterminated else chunk.lines  # the kernel's only bound
        *_, words, bad = parse(lines, 0, self._common, self._layout, only_ids=True)
        self._lines += [lines.count(b"\n") - len(bad), len(bad)]
        tokens = words.reshape(-1, 3)
        done = 0
        while done < len(tokens):
            done, self._used = count_ids(
                tokens, done, self._slots, self._shift, self._used, len(self._slots) // 2
            )
            if done < len(tokens):
                yield from self._take()

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


class IdCountReader(DataSourceReader):
    """Plans byte ranges on the driver and counts in the tasks."""

    def __init__(self, options: dict[str, str]) -> None:
        self._files = files_from_json(options["files"])
        self._range_bytes = int(options["range_bytes"])
        self._schema = Schema.from_dict(json.loads(options["schema"]))

    def partitions(self) -> list[LogRange]:
        return split_ranges(self._files, self._range_bytes)

    def read(self, partition: InputPartition) -> Iterator[Any]:
        from jobs.id_tables import count_kernel  # noqa: F401
        from jobs.raw_logs import parse_kernel  # noqa: F401

        freeze_imports(IdCountSource.name())
        task = cast(LogRange, partition)
        counter = IdCounter(task.file.common, self._schema)
        for chunk in read_range(task):
            yield from counter.add(chunk)
        yield from counter.finish()


class IdCountSource(DataSource):
    """`spark.read.format("ali_ccp_id_counts")`: rows of `SPARK_SCHEMA`."""

    @classmethod
    def name(cls) -> str:
        return "ali_ccp_id_counts"

    def schema(self) -> str:
        return SPARK_SCHEMA

    def reader(self, schema: StructType) -> IdCountReader:
        return IdCountReader(dict(self.options))


def compile_kernels(schema: Schema) -> None:
    """Count one id, so that numba's cache has the machine code for the workers."""
    line = b"%016x,1,%s\x021\x031.0\n" % (0, schema.user_fields[0].name.encode())
    counter = IdCounter(True, schema, num_slots=2)
    list(counter.add(Chunk(0, line)))
