"""A Parquet file that is there only if something is written to it."""

from contextlib import ExitStack
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from storage.filesystems import filesystem


class ParquetFile:
    """Opened with its first table. `close` completes it; leaving its block closes it in any case.

    options: those of pyarrow's writer.
    """

    def __init__(self, path: str, schema: pa.Schema, **options: Any) -> None:
        self._fs, self._path = filesystem(path)
        self._schema = schema
        self._options = options
        self._opened = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._opened.close()
        except OSError:
            if kind is None:  # else the first error tells more, such as which log has changed
                raise

    def write(self, table: pa.Table) -> None:
        """Append a table as one row group."""
        if self._writer is None:
            stream = self._fs.open(self._path, "wb")
            self._opened.callback(stream.close)
            self._writer = pq.ParquetWriter(stream, self._schema, **self._options)
            self._opened.callback(self._writer.close)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> int:
        """The size of the complete file in bytes, 0 where nothing was written."""
        self._opened.close()
        return int(self._fs.size(self._path)) if self._writer is not None else 0
