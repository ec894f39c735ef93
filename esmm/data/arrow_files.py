"""File systems of fsspec in the form that Petastorm's `Reader` takes."""

from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pyarrow.filesystem import FileSystem


class ArrowFiles(FileSystem):
    """An fsspec file system as one of pyarrow's old ones, the only kind that Petastorm's `Reader` can use."""

    def __init__(self, fs: AbstractFileSystem) -> None:
        self.fs = fs

    def isdir(self, path: str) -> bool:
        return bool(self.fs.isdir(path))

    def isfile(self, path: str) -> bool:
        return bool(self.fs.isfile(path))

    def open(self, path: str, mode: str = "rb") -> Any:
        # Arrow reads a local file without Python's lock, an fsspec stream only with it.
        if isinstance(self.fs, LocalFileSystem):
            return pa.OSFile(path)
        # Row groups are read in a random order: nothing is gained by reading on.
        return self.fs.open(path, mode, cache_type="none")
