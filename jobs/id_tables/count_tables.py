"""The ids of logs that are tables: how often each occurs in what a task reads, by `schemas.ids.key_of`."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from jobs.id_tables.token_counter import SLOTS, SPARK_SCHEMA, TokenCounter
from jobs.python_worker import freeze_imports
from jobs.raw_logs.packed_rows import salts
from jobs.raw_tables.checks import find_reasons
from jobs.raw_tables.field_values import field_values, hash_ids
from jobs.raw_tables.source import TableLogs
from schemas.hashing import POSITIVE
from schemas.schema import Schema


class RowCounter:
    """Counts the ids in batches of one of the two tables."""

    def __init__(self, schema: Schema, hash_seed: int, num_slots: int = SLOTS) -> None:
        self._schema = schema
        self._salts = salts(schema, hash_seed)
        self._counter = TokenCounter(num_slots)

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Count the ids of the good rows; yields the counts so far where there are too many different ids."""
        bad = find_reasons(batch, self._schema) != 0
        good = batch.filter(pa.array(~bad)) if bad.any() else batch
        self._counter.add_lines(good.num_rows, int(bad.sum()))
        columns = dict(zip(good.schema.names, good.columns, strict=True))
        for place in range(len(self._schema.fields)):
            if f"ids_{place}" in columns:
                yield from self._counter.add(self._tokens(columns, place))

    def finish(self) -> Iterator[pa.RecordBatch]:
        """The remaining counts, and those of the rows."""
        return self._counter.finish()

    def _tokens(self, columns: dict[str, pa.Array], place: int) -> np.ndarray:
        found = field_values(columns, place, self._schema.fields[place], self._salts[place])
        keys = found.hashes[found.present] & np.uint64(POSITIVE)
        tokens = np.empty((len(keys), 3), np.int32)
        tokens[:, 0] = place
        tokens[:, 1:] = keys.view(np.int32).reshape(-1, 2)
        return tokens


def count_parts(logs: TableLogs, schema: Schema, hash_seed: int) -> DataFrame:
    """Rows of `SPARK_SCHEMA`, an id once per task or more; mistakes in the columns as in `TableLogs.packed`.

    Contexts that are equal count once: a flat table has each of them with every impression.
    """
    of_contexts, of_impressions = logs.taken(schema)

    def count(batches: Iterable[Any]) -> Iterator[Any]:
        from jobs.id_tables import count_kernel  # noqa: F401

        freeze_imports(__name__)
        counter = RowCounter(schema, hash_seed)
        for batch in batches:
            yield from counter.add(batch)
        yield from counter.finish()

    first = of_contexts.frame.distinct().mapInArrow(count, SPARK_SCHEMA)
    return first.unionAll(of_impressions.frame.mapInArrow(count, SPARK_SCHEMA))


def compile_kernels() -> None:
    """Count one id that is a number and one that is text, so that numba's cache has the machine code."""
    counter = TokenCounter(num_slots=2)
    for one in (pa.array([1]), pa.array(["one"])):
        hash_ids(one, np.uint64(0))
    list(counter.add(np.zeros((1, 3), np.int32)))
