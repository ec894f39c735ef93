"""The samples as a Spark data sink: packed rows in, Parquet files and quarantined lines out.

Each attempt of a task writes under names of its own into a staging folder; only the driver, when all
tasks are done, gives the files of the attempts that count their final names and adds the manifest.
Publishing the staging folder is the job's business: it looks at the counts first.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql.datasource import DataSource, DataSourceArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from jobs import packed
from jobs.raw_files import LogFile, files_from_json, open_log
from schemas import manifest, samples, storage
from schemas.raw_log import QUARANTINE_REASONS

if TYPE_CHECKING:
    from jobs.unpack import Rejected, Unpacker

QUARANTINE_SCHEMA = pa.schema(
    [("reason", pa.string()), ("file", pa.string()), ("offset", pa.int64()), ("text", pa.binary())]
)
WRITER_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "write_statistics": False}


@dataclass
class TaskMessage(WriterCommitMessage):
    """What one task wrote: its files, what is in them, and what it set aside."""

    partition: int
    samples_file: str | None
    quarantine_file: str | None
    bytes: int = 0
    rows: list[int] = field(default_factory=list)
    impressions: list[int] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    quarantine: dict[str, int] = field(default_factory=dict)


class _SampleFile:
    """One Parquet file, opened with its first row, cut into row groups of equal numbers of rows."""

    def __init__(self, path: str, rows_per_row_group: int) -> None:
        self._fs, self._path = storage.filesystem(path)
        self._group_rows = rows_per_row_group
        self._pending: list[pa.RecordBatch] = []
        self._num_pending = 0
        self._stream: Any = None
        self._writer: pq.ParquetWriter | None = None
        self.rows: list[int] = []
        self.impressions: list[int] = []
        self.counts: Counter[str] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._num_pending += batch.num_rows
        if self._num_pending >= self._group_rows:
            self._write_groups(self._num_pending // self._group_rows * self._group_rows)

    def close(self) -> int:
        """Write what is left; the size of the file in bytes, 0 where no row came."""
        if self._num_pending:
            self._write_groups(self._num_pending)
        if self._writer is None:
            return 0
        self._writer.close()
        self._stream.close()
        return int(self._fs.size(self._path))

    def _write_groups(self, num_rows: int) -> None:
        table = pa.Table.from_batches(self._pending)
        for begin in range(0, num_rows, self._group_rows):
            self._write_group(table.slice(begin, min(self._group_rows, num_rows - begin)).combine_chunks())
        self._pending = table.slice(num_rows).to_batches()
        self._num_pending = table.num_rows - num_rows

    def _write_group(self, group: pa.Table) -> None:
        if self._writer is None:
            self._stream = self._fs.open(self._path, "wb")
            self._writer = pq.ParquetWriter(self._stream, samples.arrow_schema(), **WRITER_OPTIONS)
        self._writer.write_table(group, row_group_size=group.num_rows)
        num_impressions = len(group["sample_id"].combine_chunks().flatten())
        self.rows.append(group.num_rows)
        self.impressions.append(num_impressions)
        self.counts.update(
            rows=group.num_rows,
            impressions=num_impressions,
            clicks=_total(group, "click"),
            conversions=_total(group, "conversion"),
        )


def _total(group: pa.Table, column: str) -> int:
    return int(group[column].combine_chunks().flatten().to_numpy().sum())


class SampleWriter(DataSourceArrowWriter):
    """Writes one partition of packed rows per task; see the module's text."""

    def __init__(self, options: dict[str, str]) -> None:
        self._staging = options["path"]
        self._files = files_from_json(options["files"])
        self._hash_seed = int(options["hash_seed"])
        self._buckets: dict[str, int] = json.loads(options["buckets"])
        self._max_impressions = int(options["impressions_per_row"])
        self._group_rows = int(options["rows_per_row_group"])

    def write(self, iterator: Iterator[pa.RecordBatch]) -> TaskMessage:
        from jobs.unpack import Unpacker  # numba takes a second that planning and committing need not pay

        partition = cast(TaskContext, TaskContext.get()).partitionId()
        name = f"{partition:05d}-{uuid.uuid4().hex}.parquet"
        unpacker = Unpacker(self._max_impressions)
        file = _SampleFile(f"{self._staging}/{name}", self._group_rows)
        for batch in iterator:
            for rows in unpacker.add(batch):
                file.add(rows)
        for rows in unpacker.finish():
            file.add(rows)
        size = file.close()
        quarantine = _write_quarantine(
            f"{self._staging}/{samples.QUARANTINE_FOLDER}", name, unpacker, self._files
        )
        return TaskMessage(
            partition=partition,
            samples_file=name if size else None,
            quarantine_file=name if quarantine else None,
            bytes=size,
            rows=file.rows,
            impressions=file.impressions,
            counts={**file.counts, "contexts": unpacker.num_contexts},
            quarantine=quarantine,
        )

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """On the driver: final names for the files that count, everything else removed, the manifest."""
        fs, staging = storage.filesystem(self._staging)
        done = [cast(TaskMessage, message) for message in messages if message is not None]
        for message in done:
            final = _final_name(message)
            if message.samples_file:
                fs.mv(f"{staging}/{message.samples_file}", f"{staging}/{final}")
            if message.quarantine_file:
                folder = f"{staging}/{samples.QUARANTINE_FOLDER}"
                fs.mv(f"{folder}/{message.quarantine_file}", f"{folder}/{final}")
        _remove_other_attempts(fs, staging)
        storage.write_json(f"{self._staging}/{samples.MANIFEST_NAME}", dict(self._manifest(done)))

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        storage.discard(self._staging)

    def _manifest(self, done: list[TaskMessage]) -> manifest.Manifest:
        counts: Counter[str] = Counter(
            dict.fromkeys(("contexts", "rows", "impressions", "clicks", "conversions"), 0)
        )
        quarantine: Counter[str] = Counter()
        for message in done:
            counts.update(message.counts)
            quarantine.update(message.quarantine)
        entries = [
            manifest.FileEntry(name=_final_name(m), bytes=m.bytes, rows=m.rows, impressions=m.impressions)
            for m in done
            if m.samples_file
        ]
        return manifest.build(
            hash_seed=self._hash_seed,
            buckets=self._buckets,
            counts=dict(counts),
            quarantine=dict(sorted(quarantine.items())),
            source={"files": [f.path for f in self._files], "bytes": sum(f.size for f in self._files)},
            files=entries,
        )


def _final_name(message: TaskMessage) -> str:
    return f"part-{message.partition:05d}.parquet"


def _remove_other_attempts(fs: Any, staging: str) -> None:
    for folder in (staging, f"{staging}/{samples.QUARANTINE_FOLDER}"):
        if fs.exists(folder):
            for path in fs.ls(folder, detail=False):
                if path.endswith(".parquet") and not path.rpartition("/")[2].startswith("part-"):
                    fs.rm(path)


def _write_quarantine(folder: str, name: str, unpacker: "Unpacker", files: list[LogFile]) -> dict[str, int]:
    """Write the lines set aside by a task, in the order of the logs; how many for each reason."""
    if not unpacker.rejected:
        return {}
    rejected = sorted(unpacker.rejected, key=lambda line: (line.file_number, line.offset))
    _fetch_texts(rejected, files)
    paths = {file.number: file.path for file in files}
    reasons = [QUARANTINE_REASONS[line.reason] for line in rejected]
    table = pa.table(
        {
            "reason": reasons,
            "file": [paths[line.file_number] for line in rejected],
            "offset": [line.offset for line in rejected],
            "text": [line.text for line in rejected],
        },
        schema=QUARANTINE_SCHEMA,
    )
    fs, path = storage.filesystem(folder)
    fs.makedirs(path, exist_ok=True)
    with fs.open(f"{path}/{name}", "wb") as stream:
        pq.write_table(table, stream, compression="zstd")
    return dict(Counter(reasons))


def _fetch_texts(rejected: "list[Rejected]", files: list[LogFile]) -> None:
    """Read the lines whose text did not travel with them (sorted by file and offset) from the logs."""
    for file in files:
        lines = [line for line in rejected if line.file_number == file.number and line.text is None]
        if not lines:
            continue
        with open_log(file) as stream:
            for line in lines:
                stream.seek(line.offset)
                line.text = stream.readline().rstrip(b"\n")


class SampleSink(DataSource):
    """`df.write.format("esmm_samples")` for rows of `jobs.packed.SPARK_SCHEMA` sorted by key, kind, order."""

    @classmethod
    def name(cls) -> str:
        return "esmm_samples"

    def schema(self) -> str:
        return packed.SPARK_SCHEMA

    def writer(self, schema: StructType, overwrite: bool) -> SampleWriter:
        return SampleWriter(dict(self.options))
