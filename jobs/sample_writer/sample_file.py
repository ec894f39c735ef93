"""One Parquet file of samples, written row group by row group."""

from collections import Counter
from typing import Any, Self

import pyarrow as pa

from jobs.sample_writer.number_tally import NumberTally
from jobs.sample_writer.parquet_file import ParquetFile
from schemas import samples
from schemas.schema import Schema


def _leaf(column: samples.Column) -> str:
    return f"{column.name}.list.element" if column.is_list else column.name


def writer_options(schema: Schema) -> dict[str, Any]:
    """How Parquet keeps the columns of a schema's samples."""
    # In order, or nearly so (unpack_kernel): their differences take far fewer bytes than a dictionary.
    ascending = [field.column for field in schema.user_fields if field.multi]
    ascending += [name for name in ("sample_id",) if schema.sample_id_type == "int64"]
    columns = samples.columns(schema)
    return {
        "compression": "zstd",
        "compression_level": 1,
        "write_statistics": False,
        "use_dictionary": [_leaf(column) for column in columns if column.name not in ascending],
        "column_encoding": {
            _leaf(column): "DELTA_BINARY_PACKED" for column in columns if column.name in ascending
        },
    }


class SampleFile:
    """A file of samples, cut into row groups of equal numbers of rows. `close` completes it; leaving its
    block closes it in any case.

    rows, impressions: per row group written. counts: rows, impressions, clicks, conversions and, where
    impressions have them, actions. numbers: of the numeric fields.
    """

    def __init__(self, path: str, schema: Schema, rows_per_row_group: int) -> None:
        self._file = ParquetFile(path, samples.arrow_schema(schema), **writer_options(schema))
        self._group_rows = rows_per_row_group
        self._pending: list[pa.RecordBatch] = []
        self._num_pending = 0
        self.rows: list[int] = []
        self.impressions: list[int] = []
        self.counts: Counter[str] = Counter()
        self.numbers = NumberTally(schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def add(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._num_pending += batch.num_rows
        if self._num_pending >= self._group_rows:
            self._write_groups(self._num_pending // self._group_rows * self._group_rows)

    def close(self) -> int:
        """Write what is left; the size of the file in bytes, 0 where no row came."""
        if self._num_pending:
            self._write_groups(self._num_pending)
        return self._file.close()

    def _write_groups(self, num_rows: int) -> None:
        table = pa.Table.from_batches(self._pending)
        for begin in range(0, num_rows, self._group_rows):
            self._write_group(table.slice(begin, min(self._group_rows, num_rows - begin)).combine_chunks())
        self._pending = table.slice(num_rows).to_batches()
        self._num_pending = table.num_rows - num_rows

    def _write_group(self, group: pa.Table) -> None:
        self._file.write(group)
        num_impressions = len(group["sample_id"].combine_chunks().flatten())
        self.numbers.add(group)
        self.rows.append(group.num_rows)
        self.impressions.append(num_impressions)
        self.counts.update(
            rows=group.num_rows,
            impressions=num_impressions,
            clicks=_total(group, "click"),
            conversions=_total(group, "conversion"),
            **({"actions": _total(group, samples.ACTION)} if samples.ACTION in group.column_names else {}),
        )


def _total(group: pa.Table, column: str) -> int:
    return int(group[column].combine_chunks().flatten().to_numpy().sum())
