"""Predictions as tasks read them: pieces of Parquet files, through Arrow, without Spark's readers.

Spark would decode rows in the JVM and hand them to Python once more, which costs several times the reading.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cli.errors import InputError
from schemas.predictions import KEPT_FIELD, LABELS, PROBABILITIES
from storage.filesystems import filesystem

KEYS = ("sample_id", "user_id", "context_id")


class Piece(NamedTuple):
    """Row groups of one file, from `first` on."""

    path: str
    first: int
    num: int


def pieces_of(path: str, rows: list[int], most: int) -> Iterator[Piece]:
    """A file's row groups in pieces of about `most` rows. rows: of each row group."""
    first, held = 0, 0
    for group, num in enumerate(rows):
        if held and held + num > most:
            yield Piece(path, first, group - first)
            first, held = group, 0
        held += num
    if held:
        yield Piece(path, first, len(rows) - first)


def row_groups(path: str) -> list[int]:
    """The rows of each row group, of the footer; an `InputError` where it is no Parquet file."""
    fs, target = filesystem(path)
    try:
        with fs.open(target, "rb") as stream:
            footer = pq.ParquetFile(stream).metadata
            return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    except pa.ArrowInvalid as error:
        raise not_parquet(path) from error


def types_of(path: str) -> pa.Schema:
    """The columns of a file."""
    fs, target = filesystem(path)
    with fs.open(target, "rb") as stream:
        return pq.ParquetFile(stream).schema_arrow


def not_parquet(path: str) -> InputError:
    """What to say of a file that cannot be read."""
    return InputError(f"{path}: expected Parquet files, found one that is not. Run esmm.predict again.")


def read(pieces: Iterable[Piece], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of pieces. columns: some; None: keys, labels, probabilities and kept fields."""
    for piece in pieces:
        fs, target = filesystem(piece.path)
        try:
            with fs.open(target, "rb") as stream:
                yield _read(pq.ParquetFile(stream), piece, columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise not_parquet(piece.path) from error


def _read(file: pq.ParquetFile, piece: Piece, columns: Sequence[str] | None) -> pa.Table:
    groups = list(range(piece.first, piece.first + piece.num))
    if columns is None:
        columns = _all_columns(file, groups)
    return file.read_row_groups(groups, columns=list(columns), use_threads=False)


def _all_columns(file: pq.ParquetFile, groups: list[int]) -> list[str]:
    kept = [name for name in file.schema_arrow.names if name.startswith(KEPT_FIELD)]
    columns = [*KEYS, *LABELS, *PROBABILITIES, *kept]
    if not _lack_a_user(file, groups):  # then nobody asks for contexts, the largest column
        columns.remove("context_id")
    return columns


def _lack_a_user(file: pq.ParquetFile, groups: list[int]) -> bool:
    """Whether some row has no user; unknown counts as yes."""
    place = file.schema_arrow.get_field_index("user_id")
    columns = (file.metadata.row_group(group).column(place) for group in groups)
    return any(
        column.statistics is None or not column.statistics.has_null_count or column.statistics.null_count
        for column in columns
    )
