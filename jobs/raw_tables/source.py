"""Two tables, or one flat table, as a frame of packed rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from cli.errors import InputError
from jobs.python_worker import freeze_imports
from jobs.raw_logs import packed_rows
from jobs.raw_tables import columns
from jobs.raw_tables.columns import Taken
from jobs.session import spark_path
from schemas.schema import Schema

FORMATS = ("parquet", "orc", "json", "csv", "delta", "table")
# What Spark's reader needs to know of formats that do not say what is in them.
READER_OPTIONS = {"csv": {"header": "true", "inferSchema": "true"}, "json": {}}


@dataclass(frozen=True)
class TableLogs:
    """Logs that are tables. contexts: None where the impressions have all columns of their context too.

    format: one of FORMATS; `table` is the name of one that Spark's catalogue knows.
    """

    impressions: str
    contexts: str | None
    format: str

    def packed(self, spark: SparkSession, schema: Schema, hash_seed: int) -> DataFrame:
        """Rows of `packed_rows.SPARK_SCHEMA`; all mistakes in a table's columns in one `InputError`."""
        impressions = read(spark, self.impressions, self.format)
        contexts = read(spark, self.contexts, self.format) if self.contexts else impressions
        of_contexts = columns.taken_of_contexts(contexts, schema, self.contexts or self.impressions)
        of_impressions = columns.taken_of_impressions(impressions, schema, self.impressions)
        return _packed(contexts, of_contexts, schema, packed_rows.CONTEXTS, hash_seed).unionAll(
            _packed(impressions, of_impressions, schema, packed_rows.IMPRESSIONS, hash_seed)
        )

    @property
    def names(self) -> list[str]:
        """Of both tables, contexts first, as `packed_rows` numbers them."""
        return [self.contexts or self.impressions, self.impressions]


def read(spark: SparkSession, name: str, format: str) -> DataFrame:
    """A table, or the files of a format, by Spark's own reader."""
    try:
        if format == "table":
            return spark.table(name)
        return spark.read.format(format).options(**READER_OPTIONS.get(format, {})).load(spark_path(name))
    except AnalysisException as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name}: expected a table of format {format}, found none ({reason})") from error


def num_bytes(frame: DataFrame) -> int:
    """What Spark knows of a frame's size before it reads it; 0 where that is nothing."""
    plan: Any = frame._jdf.queryExecution().optimizedPlan()  # type: ignore[operator]
    size = int(plan.stats().sizeInBytes().toString())
    return size if size < 1 << 60 else 0


def _packed(table: DataFrame, taken: list[Taken], schema: Schema, side: int, hash_seed: int) -> DataFrame:
    """The rows of one table. side: its number in `packed_rows`."""
    sources = {column.name: column.source for column in taken}

    def pack(batches: Iterator[Any]) -> Iterator[Any]:
        from jobs.raw_tables.pack import Packer

        freeze_imports(__name__)
        packer = Packer(schema, side, hash_seed, sources)
        for batch in batches:
            yield from packer.rows(batch)

    chosen = table.select(*(column.column.alias(column.name) for column in taken))
    return chosen.mapInArrow(pack, packed_rows.SPARK_SCHEMA)
