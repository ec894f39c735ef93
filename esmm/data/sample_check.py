"""Are the samples what their manifest says? Errors name the file."""

import pyarrow as pa

from cli.errors import InputError, StoreError
from esmm.data.schedule import RowGroup
from schemas.manifest import Manifest
from schemas.schema import Schema
from storage.filesystems import filesystem

MAX_ROWS = 2**31 - 1  # ids are 32 bits wide
REPAIR = "Restore the file or build the samples again."
MEND_THE_WAY = (
    "See to the disk or network that the samples come from, then start again or go on with --resume."
)
# What damaged content raises: contradictions in the columns, and what Arrow makes of bytes it can't read.
DAMAGE = (InputError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError)


def check_num_rows(folder: str, schema: Schema) -> int:
    """Rows of the fused table, one for each bucket of each field."""
    num_rows = schema.num_rows
    if num_rows > MAX_ROWS:
        raise InputError(
            f"{folder}: expected at most {MAX_ROWS} buckets over all fields, found {num_rows}. "
            "Build the samples with smaller samples.buckets."
        )
    return num_rows


def check_files(folder: str, manifest: Manifest) -> None:
    """Every file of the manifest is there and as long as it was: a listing per folder, nothing is opened."""
    fs, path = filesystem(folder)
    below = {entry["name"].rpartition("/")[0] for entry in manifest["files"]}
    listed = ((place, info) for place in below for info in fs.ls(f"{path}/{place}".rstrip("/"), detail=True))
    found = {f"{place}/{info['name'].rpartition('/')[2]}".lstrip("/"): info["size"] for place, info in listed}
    for entry in manifest["files"]:
        name = entry["name"]
        size = found.get(entry["name"])
        if size is None:
            raise InputError(f"{folder}/{name}: file not found, but the manifest names it. {REPAIR}")
        if size != entry["bytes"]:
            raise InputError(
                f"{folder}/{name}: expected {entry['bytes']} bytes as in the manifest, found {size}: "
                f"truncated or replaced. {REPAIR}"
            )


class ReplacedError(InputError):
    """A file is none of those that the manifest counts: nothing in it can be trusted."""

    def __init__(self, folder: str, file: str) -> None:
        super().__init__(
            f"{folder}/{file}: its row groups do not hold the rows and impressions that the manifest counts. "
            "The file was replaced: restore it or build the samples again."
        )


def is_damage(error: Exception) -> bool:
    """Is it the row group that is broken, and not the way to it or the program?

    For pages and footers that it cannot read Arrow raises one of `DAMAGE`, or OSError itself without a
    number. An OSError with a number, or one of its subclasses, speaks of disks and networks.
    """
    if isinstance(error, OSError):
        return type(error) is OSError and error.errno is None
    return isinstance(error, DAMAGE) and not isinstance(error, (StoreError, ReplacedError))


def unreadable(folder: str, group: RowGroup, error: Exception) -> Exception:
    """An error met in a row group, as one that names it; an error of the program stays what it is."""
    place = f"{folder}/{group.file}, row group {group.index}"
    cause = " ".join(str(error).split())  # Arrow's messages have several lines
    if isinstance(error, ReplacedError):
        return error
    if isinstance(error, (StoreError, OSError)) and not is_damage(error):
        return InputError(f"{place}: cannot be reached ({cause}). {MEND_THE_WAY}")
    if isinstance(error, InputError):
        return InputError(f"{place}: {error} {REPAIR}")
    if is_damage(error):
        return InputError(f"{place}: cannot be read ({cause}). {REPAIR}")
    error.add_note(f"met in {place}")
    return error
