"""The raw logs as a Spark data source: byte ranges in, packed binary rows out (see `packed_rows`).

`chunks` says which lines belong to a range: every line to exactly one. A `.gz` file can't be
split: it is one range.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import StructType

from cli.errors import InputError
from jobs.python_worker import freeze_imports
from jobs.raw_logs import id_lookup, packed_rows, text_format
from jobs.raw_logs.chunks import Chunk, read_chunks
from jobs.raw_logs.files import LogFile, files_from_json, open_log
from jobs.raw_logs.id_lookup import IdTable, no_table
from jobs.raw_logs.listing import ADVICE
from schemas import ids
from schemas.raw_log import QUARANTINE_REASONS
from schemas.schema import Schema

if TYPE_CHECKING:
    from jobs.raw_logs import parse_kernel

MAX_RUN = 256  # impressions in one packed row: what a writer must be able to hold at least
LINE_FEED = ord("\n")
TRUNCATED = QUARANTINE_REASONS.index("truncated_line")
TOO_LONG = QUARANTINE_REASONS.index("line_too_long")

# Of a session that reads raw logs. Blobs are large (a common record about 5 kB, many impressions of a
# context 50 kB): batches by bytes.
SPARK_OPTIONS = {
    "spark.sql.execution.arrow.maxBytesPerBatch": "16m",
    "spark.driver.memory": "2g",
}


@dataclass
class LogRange(InputPartition):
    """Bytes begin..end-1 of a file; end is None for a whole compressed file."""

    file: LogFile
    begin: int
    end: int | None


def split_ranges(files: list[LogFile], range_bytes: int) -> list[LogRange]:
    """Every byte of every file in exactly one range of at most `range_bytes`."""
    ranges = []
    for file in files:
        if file.compressed:
            ranges.append(LogRange(file, 0, None))
            continue
        for begin in range(0, file.size, range_bytes):
            ranges.append(LogRange(file, begin, min(begin + range_bytes, file.size)))
    return ranges


def task_bytes(files: list[LogFile], most: int, parallelism: int) -> int:
    """Bytes for one parsing task: `most`, or less where that would leave cores idle."""
    return max(1 << 20, min(most, -(-sum(file.size for file in files) // (2 * parallelism))))


class Parser:
    """Packs the chunks of one file."""

    def __init__(self, file: LogFile, schema: Schema, hash_seed: int, table: IdTable | None = None) -> None:
        self._file = file
        self._layout = parse_layout(schema, hash_seed, table)

    def rows(self, chunk: Chunk) -> Iterator[Any]:
        """Record batches of a chunk: the good lines, then the quarantined ones if there are any."""
        base, lines, unterminated, too_long = chunk
        if too_long:
            yield self._quarantined(base, lines, np.array([[TOO_LONG, 0, len(lines)]]))
            return
        if unterminated:
            lines += b"\n"  # the kernel's only bound
        keys, orders, starts, words, bad = parse(lines, base, self._file.common, self._layout)
        if len(keys):
            kind = packed_rows.KIND_CONTEXT if self._file.common else packed_rows.KIND_IMPRESSIONS
            yield packed_rows.record_batch(
                keys.view(np.int64),
                np.full(len(keys), kind, np.int8),
                orders + (self._file.number << packed_rows.OFFSET_BITS),
                starts,
                words,
            )
        if len(bad):
            if unterminated and bad[-1, 2] == len(lines) - 1:
                bad[-1, 0] = TRUNCATED
            yield self._quarantined(base, lines, bad)

    def _quarantined(self, base: int, lines: bytes, bad: np.ndarray) -> Any:
        blobs = []
        for reason, begin, end in bad.tolist():
            text = lines[begin:end]
            head = np.array([reason, len(text)], np.int32).tobytes()
            blobs.append(np.frombuffer(head + text + bytes(-len(text) % 4), np.int32))
        orders = bad[:, 1] + base + (self._file.number << packed_rows.OFFSET_BITS)
        starts = np.concatenate([[0], np.cumsum([len(b) for b in blobs])]).astype(np.int64)
        kinds = np.full(len(blobs), packed_rows.KIND_QUARANTINED, np.int8)
        return packed_rows.record_batch(orders, kinds, orders, starts, np.concatenate(blobs))


def parse(
    lines: bytes, base: int, common: bool, layout: "parse_kernel.ParseLayout", only_ids: bool = False
) -> tuple[np.ndarray, ...]:
    """Keys, orders, starts and words of the packed rows, and the broken lines; see the kernels."""
    from jobs.raw_logs import parse_kernel

    data = np.frombuffer(lines, np.uint8)
    num_lines = int(np.count_nonzero(data == LINE_FEED))  # bytes.count takes four times as long
    most = min(num_lines, len(data) // 16)  # no good line is shorter than its 16-digit context id
    shortest, num_fields = text_format.SHORTEST_FEATURE, len(layout.fields)
    most_words = (
        len(data) // shortest * 3 if only_ids else text_format.most_words(num_fields, most, len(data))
    )
    words = np.empty(most_words, np.int32)
    keys = np.empty(most, np.uint64)
    orders = np.empty(most, np.int64)
    starts = np.empty(most + 1, np.int64)
    bad = np.empty((num_lines, 3), np.int64)
    kernel = parse_kernel.list_ids if only_ids else parse_kernel.parse_lines
    num_rows, num_bad = kernel(
        data, base, common, MAX_RUN, layout, words, words.view(np.float32), keys, orders, starts, bad
    )
    starts = starts[: num_rows + 1]
    return keys[:num_rows], orders[:num_rows], starts, words[: starts[-1]], bad[:num_bad]


def parse_layout(
    schema: Schema, hash_seed: int, table: IdTable | None = None, only_ids: bool = False
) -> "parse_kernel.ParseLayout":
    """What the kernels must know; only_ids: for `list_ids`."""
    from jobs.raw_logs import parse_kernel

    table = table or no_table(schema)
    slots = packed_rows.slot_arrays(schema)  # of text logs the fields alone
    fields = np.zeros(len(schema.fields), parse_kernel.FIELD_DTYPE)
    fields["salt"] = packed_rows.salts(schema, hash_seed)
    fields["buckets"] = packed_rows.bucket_sizes(schema)
    fields["first"] = table.firsts
    fields["mask"] = table.masks
    fields["multi"] = slots.multi
    fields["weighted"] = slots.weighted
    fields["raw"][table.fields] = True
    fields["raw"] |= only_ids
    return parse_kernel.ParseLayout(
        packed_rows.frozen(fields),
        text_format.field_of_code(schema),
        table.fields,
        table.known,
        table.exact,
        slots.num_context_slots,
        schema.index.get(schema.user_id or "", -1),
        packed_rows.CONTEXT_HEADER,
        packed_rows.IMPRESSION_HEADER,
        text_format.SHORTEST_FEATURE,
    )


def read_range(task: LogRange) -> Iterator[Chunk]:
    """The lines of a byte range of a raw log; an `InputError` where it is a damaged gzip file, or is not
    what it was when the job listed it."""
    path = task.file.path
    try:
        with open_log(task.file) as stream:
            yield from read_chunks(stream, task.begin, task.end)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        if not task.file.compressed:
            raise InputError(f"{path}: it became shorter while it was read: {error}. {ADVICE}") from error
        raise InputError(
            f"{path}: expected a whole gzip file, found a damaged one ({error}). Fetch it again."
        ) from error


class RawLogReader(DataSourceReader):
    """Plans byte ranges on the driver and parses them in the tasks."""

    def __init__(self, options: dict[str, str]) -> None:
        self._files = files_from_json(options["files"])
        self._range_bytes = int(options["range_bytes"])
        self._hash_seed = int(options["hash_seed"])
        self._schema = Schema.from_dict(json.loads(options["schema"]))
        self._table: ids.Reference | None = json.loads(options.get("id_table", "null"))

    def partitions(self) -> list[LogRange]:
        return split_ranges(self._files, self._range_bytes)

    def read(self, partition: InputPartition) -> Iterator[Any]:
        from jobs.raw_logs import parse_kernel  # noqa: F401

        freeze_imports(RawLogSource.name())
        task = cast(LogRange, partition)
        table = id_lookup.load(self._table, self._schema)
        parser = Parser(task.file, self._schema, self._hash_seed, table)
        for chunk in read_range(task):
            yield from parser.rows(chunk)


class RawLogSource(DataSource):
    """`spark.read.format("ali_ccp_logs")`: rows of `jobs.raw_logs.packed_rows.SPARK_SCHEMA`."""

    @classmethod
    def name(cls) -> str:
        return "ali_ccp_logs"

    def schema(self) -> str:
        return packed_rows.SPARK_SCHEMA

    def reader(self, schema: StructType) -> RawLogReader:
        return RawLogReader(dict(self.options))
