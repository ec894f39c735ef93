"""Text logs as a frame of packed rows."""

import json
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from jobs.raw_logs.files import LogFile, files_to_json
from jobs.raw_logs.source import RawLogSource, task_bytes
from jobs.samples_config import SamplesConfig
from schemas import ids
from schemas.schema import Schema


@dataclass(frozen=True)
class TextLogs:
    """The files of both sides, as `jobs.raw_logs.files.find_logs` has found them."""

    files: list[LogFile]

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def text_bytes(self) -> int:
        """Bytes of the lines, of compressed files about."""
        return sum(file.text_bytes for file in self.files)

    def packed(
        self, spark: SparkSession, schema: Schema, settings: SamplesConfig, id_table: ids.Reference | None
    ) -> DataFrame:
        """Rows of `packed_rows.SPARK_SCHEMA`."""
        spark.dataSource.register(RawLogSource)
        parallelism = spark.sparkContext.defaultParallelism
        reader = spark.read.format(RawLogSource.name()).options(
            files=files_to_json(self.files),
            schema=json.dumps(schema.to_dict()),
            hash_seed=str(settings.hash_seed),
            id_table=json.dumps(id_table),
            range_bytes=str(task_bytes(self.files, settings.raw_bytes_per_task, parallelism)),
        )
        return reader.load()
