"""Files of samples as the tasks of jobs read them: through Arrow, without Spark's readers."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from cli.errors import InputError
from storage.filesystems import filesystem

ROWS_PER_BATCH = 2048  # some million tokens of Ali-CCP


def read_batches(path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a file, `ROWS_PER_BATCH` rows at a time; an `InputError` where it holds no samples."""
    fs, target = filesystem(path)
    try:
        with fs.open(target, "rb") as stream:
            file = pq.ParquetFile(stream)
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=columns, use_threads=False):
                yield batch.select(columns)
    except FileNotFoundError:
        raise InputError(
            f"{path}: expected this file, as the manifest names it, found none. Build the samples again."
        ) from None
    except (pa.ArrowInvalid, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: expected a file of samples, found another one ({reason}). Build the samples again."
        ) from error
