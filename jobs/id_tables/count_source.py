"""The ids of text logs as a Spark data source: how often each occurs in a part of a byte range."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import StructType

from jobs.id_tables.token_counter import SLOTS, SPARK_SCHEMA, TokenCounter
from jobs.python_worker import freeze_imports
from jobs.raw_logs.chunks import Chunk
from jobs.raw_logs.files import files_from_json
from jobs.raw_logs.source import LogRange, parse, parse_layout, read_range, split_ranges
from schemas.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa


class IdCounter:
    """Counts the ids of chunks of one side of the logs."""

    def __init__(self, common: bool, schema: Schema, num_slots: int = SLOTS) -> None:
        self._common = common
        self._layout = parse_layout(schema, hash_seed=0, only_ids=True)
        self._counter = TokenCounter(num_slots)

    def add(self, chunk: Chunk) -> Iterator["pa.RecordBatch"]:
        """Count a chunk's ids; the counts so far where there are too many different ones."""
        if chunk.too_long:
            self._counter.add_lines(good=0, broken=1)
            return
        lines = chunk.lines + b"\n" if chunk.unterminated else chunk.lines  # the kernel's only bound
        *_, words, bad = parse(lines, 0, self._common, self._layout, only_ids=True)
        self._counter.add_lines(lines.count(b"\n") - len(bad), len(bad))
        yield from self._counter.add(words.reshape(-1, 3))

    def finish(self) -> Iterator["pa.RecordBatch"]:
        """The remaining counts, and those of the lines."""
        return self._counter.finish()


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
