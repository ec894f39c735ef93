"""The benchmarks' raw logs once more as two tables in Parquet, and the schema that reads them."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.building.plain_spark import COMMON, SKELETON, read_lines
from benchmarks.building.raw_logs import Logs
from jobs.session import spark_path
from schemas.fields import Field
from schemas.schema import Schema, Tables

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogTables:
    """Where the two tables of some logs are."""

    contexts: str
    impressions: str

    @property
    def bytes(self) -> int:
        folders = (Path(self.contexts), Path(self.impressions))
        return sum(path.stat().st_size for folder in folders for path in folder.glob("*.parquet"))


def schema_of_tables(schema: Schema) -> Schema:
    """The schema of the tables that `make_missing` writes of logs of a schema."""
    fields = (
        replace(field, source=_source(field), weight_source=_weight_source(field)) for field in schema.fields
    )
    return replace(schema, fields=tuple(fields), tables=Tables())


def make_missing(spark: SparkSession, logs: Logs, schema: Schema) -> LogTables:
    """The tables of some logs, beside them; written where they are missing or of other logs."""
    folder = Path(logs.common).parent
    tables = LogTables(f"{folder}-contexts", f"{folder}-impressions")
    labels = ("sample_id", "click", "conversion")
    of_contexts = [F.col("context_id"), *map(_column, schema.user_fields)]
    of_impressions = [F.col("context_id"), *map(F.col, labels), *map(_column, schema.impression_fields)]
    for path, layout, columns, out in (
        (logs.common, COMMON, of_contexts, tables.contexts),
        (logs.skeleton, SKELETON, of_impressions, tables.impressions),
    ):
        if not _is_of(Path(out) / "_SUCCESS", Path(path)):
            LOG.info("writing %s", out)
            rows = _good(read_lines(spark, path, layout)).select(*columns)
            rows.write.parquet(spark_path(out), mode="overwrite", compression="snappy")
    return tables


def _is_of(mark: Path, logs: Path) -> bool:
    """Whether a table was written after the logs that it is made of."""
    return mark.exists() and mark.stat().st_mtime >= logs.stat().st_mtime


def _good(lines: DataFrame) -> DataFrame:
    return lines.where("feature_list is not null")


def _source(field: Field) -> str:
    return f"{_name(field)}.id" if field.weighted and not field.multi else _name(field)


def _weight_source(field: Field) -> str | None:
    return f"{_name(field)}.value" if field.weighted and not field.multi else None


def _column(field: Field) -> Column:
    """A number, or a struct (id, value) where it is weighted; an array of these where it is multi-valued."""
    own = F.filter("features", lambda feature: feature["field"] == field.name)
    if not field.multi:
        first = F.get(own, F.lit(0))
        return (F.struct(first["id"], first["value"]) if field.weighted else first["id"]).alias(_name(field))
    if not field.weighted:
        return own["id"].alias(_name(field))
    return F.transform(own, lambda feature: F.struct(feature["id"], feature["value"])).alias(_name(field))


def _name(field: Field) -> str:
    return f"f_{field.name}"
