"""An id table (`schemas.ids`) as the parser's tasks load it: flat arrays that the kernel looks up.

Every field has its own open-addressing table with at most half of its slots, a power of two, in use;
they lie end to end in one array, those of the fields with a vocabulary first. A slot is 8 bytes, of a
vocabulary 12. A worker process loads a table once and keeps it for its later tasks.
"""

import logging
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli.errors import InputError
from jobs.raw_logs.packed_rows import frozen, salts
from schemas import ids
from schemas.schema import Schema
from storage.filesystems import filesystem

LOG = logging.getLogger(__name__)


class IdTable(NamedTuple):
    """fields: int64, those with ids in the table. firsts, masks: int64, uint64 [F], where the slots of
    each field begin and their number - 1. known, exact: see `parse_kernel.ParseLayout`. All read-only."""

    fields: np.ndarray
    firsts: np.ndarray
    masks: np.ndarray
    known: np.ndarray
    exact: np.ndarray


def no_table(schema: Schema) -> IdTable:
    """For fields that are all hashed."""
    nowhere = frozen(np.zeros(len(schema.fields), np.int64))
    nothing = frozen(np.zeros(0, np.int64))
    return IdTable(nothing, nowhere, nowhere.view(np.uint64), nothing, frozen(np.zeros(0, np.int32)))


def load(reference: ids.Reference | None, schema: Schema) -> IdTable | None:
    """The table that some samples use, from memory where this process has it already."""
    return None if reference is None else _load(reference["path"], reference["digest"], schema)


@lru_cache(maxsize=1)
def _load(path: str, digest: str, schema: Schema) -> IdTable:
    """Read a table; an `InputError` where it is not the one with this digest, or incomplete."""
    begin = time.monotonic()
    manifest = ids.read(path)
    if manifest["digest"] != digest:
        raise InputError(
            f"{path}: expected the id table {digest}, found {manifest['digest']}: it was replaced while "
            "the job ran. Start the job again."
        )
    table = _filled(path, manifest, schema)
    megabytes = (table.known.nbytes + table.exact.nbytes) / 1e6
    LOG.info("%s: loaded in %.1f s, %.0f MB", path, time.monotonic() - begin, megabytes)
    return table


def _filled(path: str, manifest: ids.IdManifest, schema: Schema) -> IdTable:
    from jobs.raw_logs import parse_kernel

    table = _planned(manifest, schema)
    known = np.full(len(table.known), parse_kernel.EMPTY)
    exact = np.zeros(len(table.exact), np.int32)
    fields = np.zeros(len(schema.fields), parse_kernel.FIELD_DTYPE)
    fields["salt"] = salts(schema, manifest["hash_seed"])
    fields["first"] = table.firsts
    fields["mask"] = table.masks
    room = np.array([_num_known(manifest, name) for name in schema.index], np.int64)
    whole = all(parse_kernel.put_ids(*rows, fields, known, exact, room) for rows in _rows(path, schema))
    if not whole or room.any():
        raise InputError(
            f"{path}: the id table does not hold the ids that its {ids.MANIFEST_NAME} counts. "
            f"Copy it again, or make it again with {ids.COMMAND}."
        )
    return table._replace(known=frozen(known), exact=frozen(exact))


def _planned(manifest: ids.IdManifest, schema: Schema) -> IdTable:
    """Where everything goes; known and exact only have their lengths."""
    settings = ids.settings_of(manifest)
    names = sorted(settings.table_fields(), key=lambda name: settings.mode(name) != "vocabulary")
    firsts = np.zeros(len(schema.fields), np.int64)
    masks = np.zeros(len(schema.fields), np.uint64)
    num_slots = num_exact = 0
    for name in names:
        slots = num_slots_for(_num_known(manifest, name))
        firsts[schema.index[name]] = num_slots
        masks[schema.index[name]] = slots - 1
        num_slots += slots
        if settings.mode(name) == "vocabulary":
            num_exact = num_slots
    fields = np.array([schema.index[name] for name in names], np.int64)
    lengths = np.broadcast_to(np.int64(0), num_slots), np.broadcast_to(np.int32(0), num_exact)
    return IdTable(frozen(fields), frozen(firsts), frozen(masks), *lengths)


def _num_known(manifest: ids.IdManifest, name: str) -> int:
    return manifest["fields"][name]["kept_ids"] if ids.settings_of(manifest).mode(name) != "hash" else 0


def num_slots_for(num_ids: int) -> int:
    """The power of two at least twice as large; one free slot for a field without ids."""
    return 1 << max(0, 2 * num_ids - 1).bit_length()


def _rows(path: str, schema: Schema) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Field index, id and bucket of all known ids, a batch at a time."""
    fs, folder = filesystem(path)
    for name in sorted(fs.glob(f"{folder}/*.parquet")):
        with fs.open(name, "rb") as stream:
            file = pq.ParquetFile(stream, read_dictionary=["field"])
            for batch in file.iter_batches(1 << 18, columns=["field", "id", "bucket"]):
                yield _places(batch["field"], schema), batch["id"].to_numpy(), batch["bucket"].to_numpy()


def _places(names: pa.DictionaryArray, schema: Schema) -> np.ndarray:
    of_name = np.array([schema.index[name] for name in names.dictionary.to_pylist()], np.int64)
    return of_name[names.indices.to_numpy()]
