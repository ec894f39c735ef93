"""Are the samples what their manifest says? Errors name the file."""

import pyarrow as pa
import pyarrow.parquet as pq

from esmm.data.schedule import RowGroup
from schemas import storage
from schemas.errors import InputError
from schemas.manifest import Manifest

MAX_ROWS = 2**31 - 1  # ids are 32 bits wide
REPAIR = "Restore the file or build the samples again."


def check_num_rows(folder: str, manifest: Manifest) -> int:
    """Rows of the fused table, one for each bucket of each field."""
    num_rows = sum(manifest["buckets"].values())
    if num_rows > MAX_ROWS:
        raise InputError(
            f"{folder}: expected at most {MAX_ROWS} buckets over all fields, found {num_rows}. "
            "Build the samples with smaller samples.buckets."
        )
    return num_rows


def check_files(folder: str, manifest: Manifest) -> None:
    """Every file of the manifest is there and as long as it was: one listing, nothing is opened."""
    fs, path = storage.filesystem(folder)
    found = {info["name"].rpartition("/")[2]: info["size"] for info in fs.ls(path, detail=True)}
    for entry in manifest["files"]:
        name, size = entry["name"], found.get(entry["name"])
        if size is None:
            raise InputError(f"{folder}/{name}: file not found, but the manifest names it. {REPAIR}")
        if size != entry["bytes"]:
            raise InputError(
                f"{folder}/{name}: expected {entry['bytes']} bytes as in the manifest, found {size}: "
                f"truncated or replaced. {REPAIR}"
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
                f"{folder}/{entry['name']}: not a readable Parquet file ({error}). {REPAIR}"
            ) from error
        if [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] != entry["rows"]:
            raise other_rows(folder, entry["name"])


def other_rows(folder: str, file: str) -> InputError:
    return InputError(
        f"{folder}/{file}: its row groups do not hold the rows and impressions that the manifest counts. "
        "The file was replaced: restore it or build the samples again."
    )


def unreadable(folder: str, group: RowGroup, error: Exception) -> Exception:
    """An error met in a row group, as one that names it; an error of the program stays what it is."""
    place = f"{folder}/{group.file}, row group {group.index}"
    if isinstance(error, InputError):
        return InputError(f"{place}: {error} {REPAIR}")
    if isinstance(error, (pa.ArrowException, OSError)):
        cause = " ".join(str(error).split())  # Arrow's messages have several lines
        return InputError(f"{place}: cannot be read ({cause}). {REPAIR}")
    return error


def is_damage(error: Exception) -> bool:
    """Is it the row group that is broken, or the way to it?

    For pages that it cannot read Arrow raises OSError itself; its subclasses speak of files and networks.
    """
    return isinstance(error, (InputError, pa.ArrowException)) or type(error) is OSError
