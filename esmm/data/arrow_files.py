"""The files of a sample set: what Petastorm sees of them, and how a row group is really read."""

import threading
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from pyarrow.filesystem import FileSystem

from esmm.data.sample_check import ReplacedError
from esmm.data.schedule import RowGroup
from schemas import samples
from schemas.schema import Schema
from storage.filesystems import filesystem, is_local

FOOTERS_KEPT = 1024  # of files; each takes about 50 kB per row group of the file


class ArrowFiles(FileSystem):
    """A folder of samples as one of pyarrow's old file systems, all that Petastorm's `Reader` can use.

    Petastorm opens every file at every epoch, to learn its columns and row groups. The schema and the
    manifest say these, so what it gets to open is a small file in memory. A file's real footer is read with
    the first of its row groups and kept, for all threads and epochs.
    """

    def __init__(self, folder: str, schema: Schema) -> None:
        self.folder = folder
        self._columns_only = _columns_only(samples.arrow_schema(schema))
        self._fs, self._path = filesystem(folder)
        self._footers: dict[str, pq.FileMetaData] = {}
        self._reads_footer = threading.Lock()

    # ---- For Petastorm ---------------------------------------------------------------------------------

    def isdir(self, path: str) -> bool:
        return False

    def isfile(self, path: str) -> bool:
        return True

    def open(self, path: str, mode: str = "rb") -> pa.NativeFile:
        """A file that has the columns of the samples and no rows, whatever the path."""
        return pa.BufferReader(self._columns_only)

    # ---- For those who read row groups -----------------------------------------------------------------

    def read(self, group: RowGroup, columns: list[str]) -> pa.Table:
        """One row group. Raises `ReplacedError` for a file that is not the one that the manifest counts."""
        with open_file(self._fs, f"{self._path}/{group.file}") as stream:
            footer = self._footer(group.file, stream)
            if (
                group.index >= footer.num_row_groups
                or footer.row_group(group.index).num_rows != group.num_rows
            ):
                raise ReplacedError(self.folder, group.file)
            # Far away every read is a request: one for neighbouring columns, not one for each.
            remote = not isinstance(stream, pa.NativeFile)
            parquet = pq.ParquetFile(stream, metadata=footer, pre_buffer=remote)
            return parquet.read_row_group(group.index, columns=columns, use_threads=False)

    def _footer(self, file: str, stream: Any) -> pq.FileMetaData:
        with self._reads_footer:
            footer = self._footers.get(file)
            if footer is None:
                footer = self._footers[file] = pq.read_metadata(stream)
                if len(self._footers) > FOOTERS_KEPT:
                    del self._footers[next(iter(self._footers))]
        return footer


def open_file(fs: AbstractFileSystem, path: str) -> Any:
    """A file for reading at random places."""
    # Arrow reads a local file without Python's lock, an fsspec stream only with it.
    if is_local(fs):
        return pa.OSFile(path)
    # Row groups are read in a random order: nothing is gained by reading on.
    return fs.open(path, "rb", cache_type="none")


def _columns_only(columns: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(columns.empty_table(), sink)
    return sink.getvalue()
