"""Two tables, or one flat table, as a frame of packed rows."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from cli.errors import InputError
from jobs.python_worker import freeze_imports
from jobs.raw_logs import id_lookup, packed_rows
from jobs.raw_logs.files import LogFile
from jobs.raw_tables import columns
from jobs.raw_tables.columns import Taken
from jobs.samples_config import SamplesConfig
from jobs.session import spark_path
from schemas import ids
from schemas.schema import Schema

FORMATS = ("parquet", "orc", "json", "csv", "delta", "table")
# What Spark's reader needs to know of formats that do not say what is in them.
READER_OPTIONS = {"csv": {"header": "true", "inferSchema": "true"}}
TEXT_PER_BYTE = 4  # about so many bytes of text for each of Parquet


def add_table_arguments(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """The options that name the tables of a command."""
    parser.add_argument(
        "--impressions",
        required=required,
        metavar="TABLE",
        help="table of impressions: a path, or a name with --format table",
    )
    parser.add_argument(
        "--contexts", metavar="TABLE", help="table of contexts; default: --impressions has their columns too"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="parquet", help="of the tables, read by Spark's own readers"
    )


class TakenTable(NamedTuple):
    """The columns of `jobs.raw_tables.columns`. sources: what the table calls each of them."""

    frame: DataFrame
    sources: dict[str, str]

    @classmethod
    def of(cls, table: DataFrame, taken: list[Taken]) -> Self:
        frame = table.select(*(column.column.alias(column.name) for column in taken))
        return cls(frame, {column.name: column.source for column in taken})


@dataclass(frozen=True)
class TableLogs:
    """Logs that are tables; one flat table is both. files: name and size of each for the manifest,
    by their numbers in `packed_rows`."""

    contexts: DataFrame
    impressions: DataFrame
    files: list[LogFile]
    is_packed: bool  # whether a byte of the table is several of text

    @classmethod
    def open(cls, spark: SparkSession, impressions: str, contexts: str | None, kind: str) -> Self:
        """Two tables, or one that has the columns of both, where contexts is None. kind: one of FORMATS;
        `table` is the name of one that Spark's catalogue knows."""
        frame = read(spark, impressions, kind)
        other = read(spark, contexts, kind) if contexts else frame
        files = [
            LogFile(packed_rows.CONTEXTS, contexts or impressions, True, num_bytes(other) if contexts else 0),
            LogFile(packed_rows.IMPRESSIONS, impressions, False, num_bytes(frame)),
        ]
        return cls(other, frame, files, kind not in ("csv", "json"))

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def text_bytes(self) -> int:
        """About as many bytes as the same logs take as text."""
        return self.num_bytes * (TEXT_PER_BYTE if self.is_packed else 1)

    def packed(
        self, spark: SparkSession, schema: Schema, settings: SamplesConfig, id_table: ids.Reference | None
    ) -> DataFrame:
        """Rows of `packed_rows.SPARK_SCHEMA`; all mistakes in a table's columns in one `InputError`."""
        of_contexts, of_impressions = self.taken(schema)
        first = _packed(of_contexts, schema, packed_rows.CONTEXTS, settings.hash_seed, id_table)
        second = _packed(of_impressions, schema, packed_rows.IMPRESSIONS, settings.hash_seed, id_table)
        return first.unionAll(second)

    def taken(self, schema: Schema) -> tuple[TakenTable, TakenTable]:
        """What a schema takes of the contexts and of the impressions; mistakes as in `packed`."""
        of_contexts = columns.taken_of_contexts(self.contexts, schema, self.files[0].path)
        of_impressions = columns.taken_of_impressions(self.impressions, schema, self.files[1].path)
        return TakenTable.of(self.contexts, of_contexts), TakenTable.of(self.impressions, of_impressions)


def read(spark: SparkSession, name: str, kind: str) -> DataFrame:
    """A table, or the files of a format, by Spark's own reader."""
    try:
        if kind == "table":
            return spark.table(name)
        return spark.read.format(kind).options(**READER_OPTIONS.get(kind, {})).load(spark_path(name))
    except AnalysisException as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name}: expected a table of format {kind}, found none ({reason})") from error


def num_bytes(frame: DataFrame) -> int:
    """What Spark knows of a frame's size before it reads it; 0 where that is nothing."""
    plan: Any = frame._jdf.queryExecution().optimizedPlan()
    size = int(plan.stats().sizeInBytes())
    return size if size < 1 << 60 else 0


def _packed(
    taken: TakenTable, schema: Schema, side: int, hash_seed: int, id_table: ids.Reference | None
) -> DataFrame:
    """The rows of one table. side: its number in `packed_rows`."""
    sources = taken.sources

    def pack(batches: Iterable[Any]) -> Iterator[Any]:
        from jobs.raw_tables.pack import Packer

        freeze_imports(__name__)
        packer = Packer(schema, side, hash_seed, sources, id_lookup.load(id_table, schema))
        for batch in batches:
            yield from packer.rows(batch)

    return taken.frame.mapInArrow(pack, packed_rows.SPARK_SCHEMA)
