"""The quarantine of a sample set: Parquet files with the lines that were set aside, and why.

It lies in a folder of the samples. `schemas.raw_log.REASON_MEANING` says what the reasons mean.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

QUARANTINE_FOLDER = "_quarantine"  # the underscore keeps Parquet readers out of it


def arrow_schema() -> "pa.Schema":
    """One row per line. reason: of `QUARANTINE_REASONS`; offset: in bytes, of the unpacked file where it is
    compressed, null in a table; text: null where it was not kept, of a table JSON."""
    import pyarrow as pa

    return pa.schema(
        [("reason", pa.string()), ("file", pa.string()), ("offset", pa.int64()), ("text", pa.binary())]
    )
