"""The broken lines of logs of which nothing was published: kept beside the output."""

from schemas.quarantine import QUARANTINE_FOLDER
from storage import outputs, publishing
from storage.filesystems import filesystem

FOLDER = "_rejected"  # with a folder for each output: `folder_of` says why
REJECTED = outputs.Kind("rejected lines", None, frozenset(), r"part-\d+\.parquet")


def folder_of(out: str) -> str:
    """Where the broken lines of logs are kept that were not published to `out`.

    A sibling of `out` would be read along: Spark takes `_split=train.rejected` for a split, DuckDB's and
    polars' globs find names that begin with a dot or an underscore. None of them looks deeper.
    """
    above, slash, name = out.rstrip("/").rpartition("/")
    return f"{above}{slash}{FOLDER}/{name}"


def refuse_foreign(out: str) -> None:
    """Stop where the folder for them holds anything else."""
    outputs.refuse_foreign(folder_of(out), REJECTED)


def keep(whole: str, out: str) -> None:
    """Put the broken lines of a staged part in the place of those that an earlier job has kept."""
    lines = f"{whole}/{QUARANTINE_FOLDER}"
    kept = folder_of(out)
    refuse_foreign(out)
    fs, path = filesystem(lines)
    if fs.exists(path):
        publishing.replace(lines, kept)
    else:
        publishing.discard(kept)


def forget(out: str) -> None:
    """Remove what an earlier job has kept, now that logs were good."""
    if outputs.foreign(folder_of(out), REJECTED) is None:
        publishing.discard(folder_of(out))
