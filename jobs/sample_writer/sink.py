"""The samples as a Spark data sink: packed rows in, Parquet files and quarantined lines out.

A partition holds the rows of the training part, then those of the validation part where one is asked
for. Each part has a staging folder with two folders in it. Each attempt of a task writes under names of
its own into `attempts`; only the driver, when all tasks are done, moves the files of the attempts that
count into `whole` and adds the manifest. Publishing `whole` is the job's business: it looks at the counts
first. Whatever another attempt writes, and however late, is never in it.

The lines set aside are kept with the training part, as many have no context that could be read.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.datasource import DataSource, DataSourceArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from jobs.python_worker import freeze_imports
from jobs.raw_logs import packed_rows
from jobs.raw_logs.files import files_from_json
from schemas import ids, manifest, samples
from schemas.numbers import Statistics
from schemas.quarantine import QUARANTINE_FOLDER
from schemas.schema import Schema
from storage import publishing
from storage.filesystems import filesystem
from storage.json_files import write_json

if TYPE_CHECKING:
    from jobs.sample_writer.number_tally import Tally
    from jobs.sample_writer.quarantine_file import QuarantineFile
    from jobs.sample_writer.sample_file import SampleFile
    from jobs.sample_writer.unpack import Unpacker

ATTEMPTS, WHOLE = "attempts", "whole"  # the folders of a staging folder; the second is published


@dataclass
class PartMessage:
    """What one task wrote of one part. bytes: of its file, 0 where there is none; numbers: of each numeric
    field; quarantine: the lines set aside by reason, in the training part those of all parts."""

    name: str
    bytes: int
    rows: list[int]
    impressions: list[int]
    counts: dict[str, int]
    numbers: "dict[str, Tally]"
    quarantine: dict[str, int] = field(default_factory=dict)


@dataclass
class TaskMessage(WriterCommitMessage):
    """What one task wrote, part by part."""

    partition: int
    parts: list[PartMessage]


class _PartWriter:
    """Unpacks one task's rows of one part into a file, what is of no use into that of the quarantine."""

    def __init__(
        self, name: str, file: "SampleFile", quarantine: "QuarantineFile", unpacker: "Unpacker"
    ) -> None:
        self._name = name
        self._file = file
        self._quarantine = quarantine
        self._unpacker = unpacker

    def add(self, batch: pa.RecordBatch) -> None:
        self._write(self._unpacker.add(batch))

    def close(self) -> PartMessage:
        self._write(self._unpacker.finish())
        return PartMessage(
            name=self._name,
            bytes=self._file.close(),
            rows=self._file.rows,
            impressions=self._file.impressions,
            counts={**self._file.counts, "contexts": self._unpacker.num_contexts},
            numbers=self._file.numbers.result(),
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
        self._schema = Schema.from_dict(json.loads(options["schema"]))
        self._id_table: ids.Reference | None = json.loads(options["id_table"])
        self._max_impressions = int(options["impressions_per_row"])
        self._group_rows = int(options["rows_per_row_group"])
        self._cut_share = float(options["cut_share"])

    def write(self, iterator: Iterator[pa.RecordBatch]) -> TaskMessage:
        # Here, as numba takes a second that planning and committing need not pay.
        from jobs.sample_writer import quarantine_file, sample_file, unpack  # noqa: F401

        freeze_imports(SampleSink.name())
        return self.write_partition(cast(TaskContext, TaskContext.get()).partitionId(), iterator)

    def write_partition(self, partition: int, batches: Iterable[pa.RecordBatch]) -> TaskMessage:
        """Write the rows of one partition, part after part; an error leaves no file open."""
        name = f"{partition:05d}-{uuid.uuid4().hex}.parquet"
        done: list[PartMessage] = []
        with ExitStack() as files:
            quarantine = files.enter_context(self._quarantine_file(name))
            writer = self._part_writer(0, name, quarantine, files)
            for batch in batches:
                for part, rows in _split_parts(batch):
                    while part > len(done):
                        done.append(writer.close())
                        writer = self._part_writer(len(done), name, quarantine, files)
                    writer.add(rows)
            done.append(writer.close())
            done[0].quarantine = quarantine.close()
        return TaskMessage(partition, done)

    def _quarantine_file(self, name: str) -> "QuarantineFile":
        from jobs.sample_writer.quarantine_file import QuarantineFile

        folder = f"{self._staging[0]}/{ATTEMPTS}/{QUARANTINE_FOLDER}"
        return QuarantineFile(f"{folder}/{name}", self._files, self._schema.tables is not None)

    def _part_writer(
        self, part: int, name: str, quarantine: "QuarantineFile", files: ExitStack
    ) -> _PartWriter:
        from jobs.sample_writer.sample_file import SampleFile
        from jobs.sample_writer.unpack import Unpacker

        file = SampleFile(f"{self._staging[part]}/{ATTEMPTS}/{name}", self._schema, self._group_rows)
        unpacker = Unpacker(self._schema, self._max_impressions)
        return _PartWriter(name, files.enter_context(file), quarantine, unpacker)

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """On the driver: the files that count get their final places, the parts their manifests."""
        done = [cast(TaskMessage, message) for message in messages if message is not None]
        for part, staging in enumerate(self._staging):
            written = {m.partition: m.parts[part] for m in done if part < len(m.parts)}
            fs, whole = filesystem(f"{staging}/{WHOLE}")
            fs.makedirs(whole)
            _move(staging, {n: m.name for n, m in written.items() if m.bytes})
            _move(staging, {n: m.name for n, m in written.items() if m.quarantine}, QUARANTINE_FOLDER)
            made = self._manifest(part, written)
            write_json(f"{staging}/{WHOLE}/{samples.MANIFEST_NAME}", dict(made))

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        for staging in self._staging:
            publishing.discard(staging)

    def _manifest(self, part: int, written: dict[int, PartMessage]) -> manifest.Manifest:
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
            if m.bytes
        ]
        return manifest.build(
            schema=self._schema,
            hash_seed=self._hash_seed,
            counts=dict(counts),
            quarantine=dict(sorted(quarantine.items())),
            source={"files": [f.path for f in self._files], "bytes": sum(f.size for f in self._files)},
            files=entries,
            id_table=self._id_table,
            cut=manifest.Cut(part=manifest.PARTS[part], share=self._cut_share) if self._cut_share else None,
            layout={
                "impressions_per_row": self._max_impressions,
                "rows_per_row_group": self._group_rows,
            },
            numbers=self._numbers(written),
        )

    def _numbers(self, written: dict[int, PartMessage]) -> dict[str, Statistics]:
        from jobs.sample_writer.number_tally import statistics

        in_order = [written[partition].numbers for partition in sorted(written)]
        return {n.name: statistics(n, [found[n.name] for found in in_order]) for n in self._schema.numbers}


def _split_parts(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each part; a batch has them one after the other."""
    parts = batch.column(packed_rows.PART_COLUMN).to_numpy()
    for part in np.unique(parts).tolist():
        begin, end = np.searchsorted(parts, [part, part + 1])
        yield part, batch.slice(begin, end - begin)


def _final_name(partition: int) -> str:
    return f"part-{partition:05d}.parquet"


def _move(staging: str, names: dict[int, str], folder: str = "") -> None:
    """Move the files that count to where they are published. names: of the attempts, by partition."""
    fs, path = filesystem(staging)
    source, target = (f"{path}/{place}/{folder}".rstrip("/") for place in (ATTEMPTS, WHOLE))
    if names:
        fs.makedirs(target, exist_ok=True)
    for partition, name in names.items():
        fs.mv(f"{source}/{name}", f"{target}/{_final_name(partition)}")


class SampleSink(DataSource):
    """`df.write.format("esmm_samples")` for rows of `packed_rows.SPARK_SCHEMA` and a column `part`
    (tinyint, 0 training, 1 validation), sorted by part, key, kind, order."""

    @classmethod
    def name(cls) -> str:
        return "esmm_samples"

    def schema(self) -> str:
        return f"{packed_rows.SPARK_SCHEMA}, part tinyint"

    def writer(self, schema: StructType, overwrite: bool) -> SampleWriter:
        return SampleWriter(dict(self.options))
