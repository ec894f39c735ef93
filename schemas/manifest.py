"""`_manifest.json`: what a sample set is, written by build_samples and checked by all its readers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, NotRequired, Self, TypedDict, cast

from cli.errors import InputError
from cli.version import WRITTEN_BY
from schemas import ids, samples, schema_file
from schemas.hashing import HASH_NAME
from schemas.numbers import Statistics
from schemas.schema import Schema, differences
from storage import outputs, publishing
from storage.filesystems import filesystem
from storage.json_files import read_json

PARTS = ("training", "validation")
OUTPUT = outputs.Kind(
    content="samples",
    manifest=samples.MANIFEST_NAME,
    keys=frozenset(("schema_version", "fingerprint")),
    # The second form is that of attempts: an older job may have published one that came too late.
    names=r"_quarantine|(_quarantine/)?(part-\d+|\d+-[0-9a-f]{32})\.parquet",
)


class FileEntry(TypedDict):
    """One Parquet file; per row group the number of rows and of impressions in it."""

    name: str
    bytes: int
    rows: list[int]
    impressions: list[int]


class Cut(TypedDict):
    """How a build with a validation part divided the contexts. By hash_seed and share alone: where both
    are the same a context is on the same side, whatever the logs."""

    part: str  # which of PARTS this is
    share: float  # of the contexts that are in the validation part


class Manifest(TypedDict):
    schema_version: int
    fingerprint: str
    hash: str
    hash_seed: int
    buckets: dict[str, int]
    counts: dict[str, int]  # contexts, rows, impressions, clicks, conversions, tokens
    quarantine: dict[str, int]  # reason: lines
    source: dict[str, object]  # skeleton, common: the paths and bytes read
    files: list[FileEntry]
    schema: NotRequired[dict[str, Any]]  # `Schema.to_dict`; not in the first releases
    numbers: NotRequired[dict[str, Statistics]]  # by numeric field; absent where the schema has none
    id_table: NotRequired[ids.Reference]  # absent where all fields are hashed
    cut: NotRequired[Cut]  # absent where no validation part was cut off
    layout: NotRequired[dict[str, int]]  # impressions_per_row, rows_per_row_group; not in the first releases
    written_by: NotRequired[str]  # name and version; not in the first releases


class SampleSet(NamedTuple):
    """A folder of samples and its manifest, once that is read."""

    folder: str
    manifest: Manifest

    @classmethod
    def read(cls, folder: str) -> Self:
        return cls(folder, read(folder))


def build(
    *,
    schema: Schema,
    hash_seed: int,
    counts: dict[str, int],
    quarantine: dict[str, int],
    source: dict[str, object],
    files: list[FileEntry],
    id_table: ids.Reference | None = None,
    cut: Cut | None = None,
    layout: dict[str, int] | None = None,
    numbers: dict[str, Statistics] | None = None,
) -> Manifest:
    """A manifest in today's schema version; files in name order."""
    made = Manifest(
        schema_version=samples.SCHEMA_VERSION,
        fingerprint=samples.fingerprint(schema, hash_seed, id_table["digest"] if id_table else None),
        hash=HASH_NAME,
        hash_seed=hash_seed,
        buckets=schema.buckets,
        schema=schema.to_dict(),
        counts=counts,
        quarantine=quarantine,
        source=source,
        files=sorted(files, key=lambda entry: entry["name"]),
        written_by=WRITTEN_BY,
    )
    if id_table is not None:
        made["id_table"] = id_table
    if cut is not None:
        made["cut"] = cut
    if layout is not None:
        made["layout"] = layout
    if numbers:
        made["numbers"] = numbers
    return made


def schema_of(manifest: Mapping[str, Any]) -> Schema:
    """The schema of some samples, with the buckets that they were built with.

    manifest: theirs, or the `numbering` that a checkpoint has kept of it. The first releases wrote the
    buckets only: they knew the default schema alone.
    """
    if "schema" in manifest:
        return Schema.from_dict(manifest["schema"])
    return schema_file.default().with_buckets(manifest["buckets"])


def narrowed(manifest: Manifest, schema: Schema) -> Manifest:
    """Samples as if they had been built with this schema, where they have all that it has; else as they are.

    So a model that knows some of their fields can read them: fields are columns, and are read by name.
    """
    whole = schema_of(manifest)
    fields = {field.name: field for field in whole.fields}
    numbers = {number.name: number for number in whole.numbers}
    names = [number.name for number in schema.numbers]
    there = all(one.name in fields and fields[one.name].side == one.side for one in schema.fields)
    if not there or not set(names) <= numbers.keys():
        return manifest
    part = replace(
        whole,
        fields=tuple(fields[name] for name in schema.buckets),
        numbers=tuple(numbers[name] for name in names),
        user_id=whole.user_id if whole.user_id in schema.buckets else None,
        item_id=whole.item_id if whole.item_id in schema.buckets else None,
    )
    if part == whole or differences(schema, part):
        return manifest
    table = manifest["id_table"]["digest"] if "id_table" in manifest else None
    made = Manifest(**manifest)
    made["schema"], made["buckets"] = part.to_dict(), part.buckets
    made["fingerprint"] = samples.fingerprint(part, manifest["hash_seed"], table)
    return made


def numbering(manifest: Manifest) -> dict[str, Any]:
    """What decides which row of the embedding table an id has."""
    table = manifest.get("id_table")
    return {
        "hash": manifest["hash"],
        "hash_seed": manifest["hash_seed"],
        "id_table": table["digest"] if table else None,
        "buckets": manifest["buckets"],
        "schema": schema_of(manifest).to_dict(),
    }


def hash_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What two `numbering`s say differently of all fields' ids."""
    options = ("hash", "hash_seed", "id_table")
    return [f"{name}: {old[name]} -> {new[name]}" for name in options if old[name] != new[name]]


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """All that two `numbering`s say differently, each in a few words."""
    return [*hash_changes(old, new), *differences(schema_of(old), schema_of(new))]


def read(folder: str) -> Manifest:
    """The manifest of a published sample set of today's version, or an `InputError`."""
    require_published(folder)
    fs, path = filesystem(folder)
    if not fs.exists(f"{path}/{samples.MANIFEST_NAME}"):
        raise InputError(
            f"{folder}: expected samples ({samples.MANIFEST_NAME} inside), found a folder of something else. "
            "Give the --out folder of jobs.build_samples."
        )
    return read_staged(folder)


def require_published(folder: str) -> None:
    """Stop where no samples have been published; their manifest is not read."""
    publishing.require_published(folder, "samples", "jobs.build_samples")


def read_staged(folder: str) -> Manifest:
    """The manifest of a sample set that may not be published yet."""
    content = read_json(f"{folder}/{samples.MANIFEST_NAME}")
    version = content.get("schema_version")
    if version != samples.SCHEMA_VERSION:
        raise InputError(
            f"{folder}: expected samples of schema version {samples.SCHEMA_VERSION}, found {version}. "
            "Build them again with this version of jobs.build_samples."
        )
    return cast(Manifest, content)


def require_same(first: SampleSet, second: SampleSet) -> None:
    """Stop unless two sample sets have the same columns, hash and buckets."""
    one = first.manifest
    two = second.manifest
    if one["fingerprint"] == two["fingerprint"]:
        return
    details = "; ".join(changes(numbering(one), numbering(two)))
    raise InputError(
        f"{second.folder}: its samples do not fit those of {first.folder} "
        f"({details or 'another column layout'}). Build both with the same configuration."
    )


def require_apart(train: SampleSet, valid: SampleSet) -> None:
    """Stop where a validation part was cut off from logs that the training samples cut in another way.

    Contexts of it may be in both. That is what a job leaves that was killed after it had published its
    validation part, and before its training part took the place of an older one.
    """
    ours = train.manifest
    theirs = valid.manifest
    cut = theirs.get("cut")
    if cut is None or cut["part"] != PARTS[1] or not _files(ours) & _files(theirs):
        return
    share = ours["cut"]["share"] if "cut" in ours else 0
    if share != cut["share"]:
        raise InputError(
            f"{valid.folder}: holds a share of {cut['share']:g} of the contexts of some logs, {train.folder} "
            f"keeps out a share of {share:g} of the same logs, so that contexts may be in both. "
            "Build the two in one run of jobs.build_samples --valid-out."
        )


def _files(made: Manifest) -> set[str]:
    return set(cast(list[str], made["source"]["files"]))
