"""Are the files of a sample set those of its manifest? Errors name the file."""

import pyarrow as pa
import pyarrow.parquet as pq

from schemas import storage
from schemas.errors import InputError
from schemas.manifest import Manifest


def check_files(folder: str, manifest: Manifest) -> None:
    """Every file of the manifest is there and as long as it was: one listing, nothing is opened."""
    fs, path = storage.filesystem(folder)
    found = {info["name"].rpartition("/")[2]: info["size"] for info in fs.ls(path, detail=True)}
    for entry in manifest["files"]:
        name, size = entry["name"], found.get(entry["name"])
        if size is None:
            raise InputError(
                f"{folder}/{name}: file not found, but the manifest names it. "
                "Restore it or build the samples again."
            )
        if size != entry["bytes"]:
            raise InputError(
                f"{folder}/{name}: expected {entry['bytes']} bytes as in the manifest, found {size}: "
                "truncated or replaced. Restore it or build the samples again."
            )


def check_row_groups(folder: str, manifest: Manifest) -> None:
    """Every file has the row groups of the manifest: reads all footers, so only once something is wrong."""
    fs, path = storage.filesystem(folder)
    for entry in manifest["files"]:
        try:
            with fs.open(f"{path}/{entry['name']}", "rb") as stream:
                footer = pq.read_metadata(stream)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{folder}/{entry['name']}: not a readable Parquet file ({error}). "
                "Restore it or build the samples again."
            ) from error
        if [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] != entry["rows"]:
            raise other_rows(folder, entry["name"])


def other_rows(folder: str, file: str) -> InputError:
    return InputError(
        f"{folder}/{file}: its row groups do not hold the rows and impressions that the manifest counts. "
        "The file was replaced: restore it or build the samples again."
    )
