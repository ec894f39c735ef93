"""The samples as a Spark data sink: packed rows in, Parquet files and quarantined lines out.

A partition holds the rows of the training part, then those of the validation part where one is asked
for. Each attempt of a task writes under names of its own into staging folders, one per part; only the
driver, when all tasks are done, gives the files of the attempts that count their final names and adds
the manifests. Publishing the staging folders is the job's business: it looks at the counts first.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.datasource import DataSource, DataSourceArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from jobs import packed
from jobs.python_worker import settle
from jobs.raw_files import LogFile, files_from_json
from schemas import ids, manifest, samples, storage


@dataclass
class PartMessage:
    """What one task wrote of one part: its files, what is in them, and what it set aside."""

    samples_file: str | None
    quarantine_file: str | None
    bytes: int
    rows: list[int]
    impressions: list[int]
    counts: dict[str, int]
    quarantine: dict[str, int]


@dataclass
class TaskMessage(WriterCommitMessage):
    """What one task wrote, part by part."""

    partition: int
    parts: list[PartMessage]


class _PartWriter:
    """Unpacks one task's rows of one part into its files."""

    def __init__(self, folder: str, name: str, files: list[LogFile], max_impressions: int, group_rows: int):
        from jobs.quarantine import QuarantineFile
        from jobs.sample_file import SampleFile
        from jobs.unpack import Unpacker  # numba takes a second that planning and committing need not pay

        self._name = name
        self._unpacker: Unpacker = Unpacker(max_impressions)
        self._file: SampleFile = SampleFile(f"{folder}/{name}", group_rows)
        self._quarantine: QuarantineFile = QuarantineFile(
            f"{folder}/{samples.QUARANTINE_FOLDER}/{name}", files
        )

    def add(self, batch: pa.RecordBatch) -> None:
        self._write(self._unpacker.add(batch))

    def close(self) -> PartMessage:
        self._write(self._unpacker.finish())
        size, quarantine = self._file.close(), self._quarantine.close()
        return PartMessage(
            samples_file=self._name if size else None,
            quarantine_file=self._name if quarantine else None,
            bytes=size,
            rows=self._file.rows,
            impressions=self._file.impressions,
            counts={**self._file.counts, "contexts": self._unpacker.num_contexts},
            quarantine=quarantine,
        )

    def _write(self, batches: Iterator[pa.RecordBatch]) -> None:
        for rows in batches:
            self._file.add(rows)
        for lines in self._unpacker.take_rejected():
            self._quarantine.add(lines)


class SampleWriter(DataSourceArrowWriter):
    """Writes one partition of packed rows per task; see the module's text."""

    def __init__(self, options: dict[str, str]) -> None:
        self._staging: list[str] = json.loads(options["staging"])
        self._files = files_from_json(options["files"])
        self._hash_seed = int(options["hash_seed"])
        self._buckets: dict[str, int] = json.loads(options["buckets"])
        self._id_table: ids.Reference | None = json.loads(options["id_table"])
        self._max_impressions = int(options["impressions_per_row"])
        self._group_rows = int(options["rows_per_row_group"])

    def write(self, iterator: Iterator[pa.RecordBatch]) -> TaskMessage:
        settle()
        partition = cast(TaskContext, TaskContext.get()).partitionId()
        name = f"{partition:05d}-{uuid.uuid4().hex}.parquet"
        done: list[PartMessage] = []
        writer = self._part_writer(0, name)
        for batch in iterator:
            for part, rows in _split_parts(batch):
                while part > len(done):
                    done.append(writer.close())
                    writer = self._part_writer(len(done), name)
                writer.add(rows)
        done.append(writer.close())
        return TaskMessage(partition, done)

    def _part_writer(self, part: int, name: str) -> _PartWriter:
        return _PartWriter(self._staging[part], name, self._files, self._max_impressions, self._group_rows)

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """On the driver: final names for the files that count, everything else removed, the manifests."""
        done = [cast(TaskMessage, message) for message in messages if message is not None]
        for part, staging in enumerate(self._staging):
            written = {m.partition: m.parts[part] for m in done if part < len(m.parts)}
            self._commit_part(staging, written)

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        for staging in self._staging:
            storage.discard(staging)

    def _commit_part(self, staging: str, written: dict[int, PartMessage]) -> None:
        fs, path = storage.filesystem(staging)
        for partition, message in written.items():
            final = _final_name(partition)
            if message.samples_file:
                fs.mv(f"{path}/{message.samples_file}", f"{path}/{final}")
            if message.quarantine_file:
                folder = f"{path}/{samples.QUARANTINE_FOLDER}"
                fs.mv(f"{folder}/{message.quarantine_file}", f"{folder}/{final}")
        _remove_other_attempts(fs, path)
        storage.write_json(f"{staging}/{samples.MANIFEST_NAME}", dict(self._manifest(written)))

    def _manifest(self, written: dict[int, PartMessage]) -> manifest.Manifest:
        counts: Counter[str] = Counter(
            dict.fromkeys(("contexts", "rows", "impressions", "clicks", "conversions"), 0)
        )
        quarantine: Counter[str] = Counter()
        for message in written.values():
            counts.update(message.counts)
            quarantine.update(message.quarantine)
        entries = [
            manifest.FileEntry(name=_final_name(n), bytes=m.bytes, rows=m.rows, impressions=m.impressions)
            for n, m in written.items()
            if m.samples_file
        ]
        return manifest.build(
            hash_seed=self._hash_seed,
            buckets=self._buckets,
            counts=dict(counts),
            quarantine=dict(sorted(quarantine.items())),
            source={"files": [f.path for f in self._files], "bytes": sum(f.size for f in self._files)},
            files=entries,
            id_table=self._id_table,
        )


def _split_parts(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each part; a batch has them one after the other."""
    parts = batch.column(packed.PART_COLUMN).to_numpy()
    for part in np.unique(parts).tolist():
        begin, end = np.searchsorted(parts, [part, part + 1])
        yield part, batch.slice(begin, end - begin)


def _final_name(partition: int) -> str:
    return f"part-{partition:05d}.parquet"


def _remove_other_attempts(fs: Any, staging: str) -> None:
    for folder in (staging, f"{staging}/{samples.QUARANTINE_FOLDER}"):
        if fs.exists(folder):
            for path in fs.ls(folder, detail=False):
                if path.endswith(".parquet") and not path.rpartition("/")[2].startswith("part-"):
                    fs.rm(path)


class SampleSink(DataSource):
    """`df.write.format("esmm_samples")` for rows of `jobs.packed.SPARK_SCHEMA` and a column `part`
    (tinyint, 0 training, 1 validation), sorted by part, key, kind, order."""

    @classmethod
    def name(cls) -> str:
        return "esmm_samples"

    def schema(self) -> str:
        return f"{packed.SPARK_SCHEMA}, part tinyint"

    def writer(self, schema: StructType, overwrite: bool) -> SampleWriter:
        return SampleWriter(dict(self.options))
