"""The lines a task sets aside, written to Parquet as they come."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from jobs.raw_logs import packed_rows
from jobs.raw_logs.files import LogFile, open_log
from jobs.sample_writer.parquet_file import ParquetFile
from schemas import quarantine
from schemas.raw_log import QUARANTINE_REASONS
from storage.filesystems import filesystem

SCHEMA = quarantine.arrow_schema()
BUFFER_BYTES = 8 << 20
MOST_FETCHED = 10_000  # lines of one task whose text is read again from the logs
FETCHED_AT_ONCE, WRITTEN_AT_ONCE = 500, 100_000  # lines with and without text that are written as one piece
LINE_BLOCK_BYTES = 64 << 10  # what is read for a line; on HDFS as much again comes along


class Rejected(NamedTuple):
    """Lines that can't be used. reasons: int8 [n], codes; orders: int64 [n], where they stand (see
    `jobs.raw_logs.packed_rows`); texts: the lines, or None where they did not travel with the packed rows."""

    reasons: np.ndarray
    orders: np.ndarray
    texts: list[bytes] | None = None


class QuarantineFile:
    """A Parquet file of rejected lines, opened with the first of them. `close` completes it; leaving its
    block closes it in any case.

    Memory: some megabytes of text, and for each line whose text did not travel 9 bytes, 18 while they are
    written at the end. Those texts are read again from the logs then, for the first `MOST_FETCHED` and not
    from compressed files, in which nobody can seek; the others have file and offset.
    """

    def __init__(self, path: str, files: list[LogFile], of_tables: bool = False) -> None:
        self._path = path
        self._of_tables = of_tables
        self._file = ParquetFile(path, SCHEMA, compression="zstd")
        self._files = {file.number: file for file in files}
        self._buffered: list[Rejected] = []
        self._buffered_bytes = 0
        self._without_text: list[Rejected] = []
        self._counts: Counter[int] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def add(self, lines: Rejected) -> None:
        if not self._counts:
            fs, path = filesystem(self._path)
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._counts.update(lines.reasons.tolist())
        if lines.texts is None:
            self._without_text.append(lines)
            return
        self._buffered.append(lines)
        self._buffered_bytes += sum(map(len, lines.texts))
        if self._buffered_bytes > BUFFER_BYTES:
            self._flush()

    def close(self) -> dict[str, int]:
        """Write what is left; how many lines for each reason, nothing where there were none."""
        self._flush()
        if self._without_text:
            self._write_late()
        self._file.close()
        return {QUARANTINE_REASONS[code]: n for code, n in sorted(self._counts.items())}

    def _flush(self) -> None:
        if self._buffered:
            texts = [text for lines in self._buffered for text in lines.texts or []]
            reasons = np.concatenate([lines.reasons for lines in self._buffered])
            self._write(reasons, np.concatenate([lines.orders for lines in self._buffered]), texts)
        self._buffered = []
        self._buffered_bytes = 0

    def _write_late(self) -> None:
        """Write the lines whose text did not travel, in the order of the logs, piece by piece: as Python's
        objects they take twenty times the room."""
        reasons = np.concatenate([lines.reasons for lines in self._without_text])
        orders = np.concatenate([lines.orders for lines in self._without_text])
        self._without_text = []
        by_place = np.argsort(orders, kind="stable")
        with_text = by_place[:MOST_FETCHED]
        without = by_place[MOST_FETCHED:]
        for piece in _pieces(with_text, FETCHED_AT_ONCE):
            self._write(reasons[piece], orders[piece], self._texts(orders[piece]))
        for piece in _pieces(without, WRITTEN_AT_ONCE):
            self._write(reasons[piece], orders[piece], [None] * len(piece))

    def _texts(self, orders: np.ndarray) -> list[bytes | None]:
        """The lines at some sorted places, read again from the logs; None in a compressed file."""
        texts: list[bytes | None] = [None] * len(orders)
        numbers = orders >> packed_rows.OFFSET_BITS
        for number in np.unique(numbers).tolist():
            file = self._files[number]
            if file.compressed:
                continue
            with open_log(file, LINE_BLOCK_BYTES) as stream:
                for i in np.flatnonzero(numbers == number).tolist():
                    stream.seek(int(orders[i]) & packed_rows.OFFSET_MASK)
                    texts[i] = stream.readline().rstrip(b"\n")
        return texts

    def _write(self, reasons: np.ndarray, orders: np.ndarray, texts: Any) -> None:
        columns = {
            "reason": [QUARANTINE_REASONS[code] for code in reasons.tolist()],
            "file": [self._files[number].path for number in (orders >> packed_rows.OFFSET_BITS).tolist()],
            "offset": [None] * len(orders) if self._of_tables else orders & packed_rows.OFFSET_MASK,
            "text": texts,
        }
        self._file.write(pa.table(columns, schema=SCHEMA))


def _pieces(places: np.ndarray, most: int) -> Iterator[np.ndarray]:
    for begin in range(0, len(places), most):
        yield places[begin : begin + most]
