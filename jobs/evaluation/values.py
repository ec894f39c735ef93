"""The most frequent values of kept fields, which have a slice each."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from jobs.evaluation import prediction_files
from jobs.evaluation.blobs import SPARK_SCHEMA, Arrays, Blob, at_positions, decode, joined
from jobs.evaluation.cuts import MOST_VALUES
from jobs.evaluation.history import added_by
from jobs.evaluation.prediction_files import Piece


def frequent_values(
    spark: SparkSession, work: list[list[Piece]], columns: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Of each column its MOST_VALUES most frequent values, rising; of equally frequent ones the smaller."""
    if not columns:
        return {}

    def count(position: int) -> Iterator[Blob]:
        for rows in prediction_files.read(work[position], columns):
            for place, name in enumerate(columns):
                yield Blob(place, 0, 0, _counts(rows[name]))

    positions = spark.range(0, len(work), 1, max(1, len(work)))
    found = positions.mapInArrow(at_positions(count), SPARK_SCHEMA).select("kind", "blob").collect()
    blobs = [(row["kind"], decode(row["blob"])) for row in found]
    return {
        name: most_frequent([arrays for kind, arrays in blobs if kind == place])
        for place, name in enumerate(columns)
    }


def _counts(column: pa.ChunkedArray) -> Arrays:
    counts = column.drop_null().value_counts()
    return {name: counts.field(place).to_numpy() for place, name in enumerate(("value", "rows"))}


def most_frequent(parts: list[Arrays]) -> tuple[int, ...]:
    """parts: value and rows of each; a value may stand in several."""
    if not parts:
        return ()
    counts = added_by("value", joined(parts))
    order = np.lexsort((counts["value"], -counts["rows"]))
    return tuple(sorted(counts["value"][order[:MOST_VALUES]].tolist()))
