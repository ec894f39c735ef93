"""Id tables: which raw ids of a field are known, and the bucket of each.

A field has an id table where the configuration gives it a frequency filter (`min_count`: ids seen less
often are not known) or a vocabulary (the known ids get buckets of their own, the most frequent first),
or both. jobs.build_ids makes the tables from the training logs; every later set of samples, and the
serving system, must use the same ones. In a field with an id table

    bucket 0     missing
    bucket 1     rare or unknown: any id that is not in the table
    from 2 on    the bucket in the table: with a vocabulary 2, 3, ... by falling count, then by id;
                 without one `schemas.hashing.known_bucket`

Other fields are hashed (`schemas.hashing.bucket`). A published folder holds `_ids.json` (`IdManifest`)
and Parquet files with the known ids of these fields, sorted by field and id (`arrow_schema`). Ids of logs
that are tables may be text: there `key_of` stands for the id.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast

from cli.errors import InputError
from schemas.hashing import HASH_NAME, POSITIVE, RARE, bucket, hash_id
from storage import outputs, publishing
from storage.filesystems import filesystem
from storage.json_files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
MANIFEST_NAME = "_ids.json"
COMMAND = "jobs.build_ids"
FIRST_KNOWN = 2  # buckets 0 and 1 are those of missing and of rare ids
OUTPUT = outputs.Kind(
    content="an id table",
    manifest=MANIFEST_NAME,
    keys=frozenset(("version", "digest")),
    names=r"part-[^/]+\.parquet|\.[^/]+\.crc|_temporary(/.*)?",  # Spark's checksums and task attempts
)

Mode = Literal["hash", "min_count", "vocabulary"]
Keys = Literal["raw", "hash"]
LOGS_OF: dict[Keys, str] = {"raw": "text logs", "hash": "tables"}


@dataclass(frozen=True)
class IdSettings:
    """What decides the bucket of an id. buckets: of all fields, in the order of the schema; min_count: by
    field; vocabulary: fields. keys: what a table has of an id, of logs that are tables its hash."""

    hash_seed: int
    buckets: dict[str, int]
    min_count: dict[str, int] = field(default_factory=dict)
    vocabulary: tuple[str, ...] = ()
    keys: Keys = "raw"

    def mode(self, name: str) -> Mode:
        """How a field's ids become buckets."""
        if name in self.vocabulary:
            return "vocabulary"
        return "min_count" if name in self.min_count else "hash"

    def table_fields(self) -> list[str]:
        """The fields with an id table."""
        return [name for name in self.buckets if self.mode(name) != "hash"]

    def least_count(self, name: str) -> int:
        """How often an id of a field must have been seen to count as known."""
        return self.min_count.get(name, 1)


class FieldReport(TypedDict):
    """What the logs hold of a field, and what its buckets make of it.

    A value of a user field counts once per common record, one of the others once per impression. kept:
    what is known, in a field without an id table everything. used_buckets, collision_rate: measured over
    the kept ids, the share of them that share their bucket with another one. expected_collision_rate:
    what a perfect hash would give. seen_at_least: for some counts, the ids seen so often and their tokens.
    """

    mode: Mode
    tokens: int
    ids: int
    kept_tokens: int
    kept_ids: int
    buckets: int
    used_buckets: int
    bucket_fill: float
    collision_rate: float
    expected_collision_rate: float
    seen_at_least: dict[str, dict[str, int]]


class IdManifest(TypedDict):
    """`_ids.json`. version: of this format; digest: of the settings and the table's content, 16 hexadecimal
    digits; schema: `Schema.to_dict`; written_by: name and version; keys: what the column `id` holds. The
    last three are not in the first releases, whose keys are raw."""

    version: int
    digest: str
    hash: str
    hash_seed: int
    buckets: dict[str, int]
    min_count: dict[str, int]
    vocabulary: list[str]
    lines: int
    broken_lines: int
    source: dict[str, object]
    fields: dict[str, FieldReport]
    schema: NotRequired[dict[str, Any]]
    written_by: NotRequired[str]
    keys: NotRequired[Keys]


class Reference(TypedDict):
    """A published id table as samples name it: where it was, and what was in it."""

    path: str
    digest: str


def arrow_schema() -> "pa.Schema":
    """One row per known id of the fields with an id table."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("field", pa.string()),
            pa.field("id", pa.int64()),
            pa.field("count", pa.int64()),
            pa.field("bucket", pa.int32()),
        ]
    )


def key_of(name: str, feature_id: int | str, settings: IdSettings) -> int:
    """What a table's column `id` has for a raw id: itself, of logs that are tables 63 bits of its hash."""
    if settings.keys == "hash":
        return hash_id(name, feature_id, settings.hash_seed) & POSITIVE
    return int(feature_id)


def bucket_of(
    name: str, feature_id: int | str, settings: IdSettings, table: Mapping[tuple[str, int], int]
) -> int:
    """The bucket of a raw id, as jobs.build_samples writes it. table: its columns, (field, id) to bucket."""
    if settings.mode(name) == "hash":
        return bucket(name, feature_id, settings.buckets[name], settings.hash_seed)
    return table.get((name, key_of(name, feature_id, settings)), RARE)


def expected_collision_rate(num_ids: int, num_buckets: int) -> float:
    """Share of ids that share their bucket, if each fell into any of the buckets with equal chance.

    None of the n - 1 others falls into an id's bucket with probability (1 - 1/m) ** (n - 1).
    """
    return 1.0 - (1.0 - 1.0 / num_buckets) ** (num_ids - 1) if num_ids else 0.0


def digest(settings: IdSettings, content: Mapping[str, object]) -> str:
    """Ties samples to a table. content: checksums of the table's rows."""
    whole: dict[str, object] = {
        "hash": HASH_NAME,
        "tables": {name: _field_settings(settings, name) for name in settings.table_fields()},
        "hash_seed": settings.hash_seed,
        "content": dict(content),
    }
    if settings.keys != "raw":  # digests from before there were other keys stay
        whole["keys"] = settings.keys
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def _field_settings(settings: IdSettings, name: str) -> list[object]:
    return [settings.mode(name), settings.least_count(name), settings.buckets[name]]


def read(folder: str) -> IdManifest:
    """The manifest of a published id table, or an `InputError`."""
    publishing.require_published(folder, "an id table", COMMAND)
    fs, path = filesystem(folder)
    if not fs.exists(f"{path}/{MANIFEST_NAME}"):
        raise InputError(
            f"{folder}: expected an id table ({MANIFEST_NAME} inside), found a folder of something else. "
            f"Give the --out folder of {COMMAND}."
        )
    content = read_json(f"{folder}/{MANIFEST_NAME}")
    if content.get("version") != VERSION:
        raise InputError(
            f"{folder}: expected an id table of version {VERSION}, found {content.get('version')}. "
            f"Make it again with this version of {COMMAND}."
        )
    return cast(IdManifest, content)


def settings_of(manifest: IdManifest) -> IdSettings:
    """The settings that a table was made with."""
    return IdSettings(
        manifest["hash_seed"],
        manifest["buckets"],
        manifest["min_count"],
        tuple(manifest["vocabulary"]),
        manifest.get("keys", "raw"),
    )


def require_fit(folder: str | None, settings: IdSettings) -> Reference | None:
    """The id table of a configuration; an `InputError` unless it was made with the same settings, and for
    logs of the same fields.

    None where the configuration asks for none. Bucket sizes of fields without a table may differ.
    """
    names = settings.table_fields()
    if folder is None and not names:
        return None
    if folder is None:
        raise InputError(
            f"samples.min_count and samples.vocabulary name fields ({', '.join(names)}): expected an id "
            f"table, found none. Make it from the training logs with {COMMAND} and pass it as --ids."
        )
    if not names:
        raise InputError(
            f"--ids {folder}: expected a configuration with samples.min_count or samples.vocabulary, found "
            "neither. Leave --ids out, or give the configuration that the table was made with."
        )
    manifest = read(folder)
    made = settings_of(manifest)
    if made.keys != settings.keys:
        raise InputError(
            f"{folder}: expected an id table of {LOGS_OF[settings.keys]}, found one of {LOGS_OF[made.keys]}. "
            f"Make one with {COMMAND} from the same kind of logs as those that it is for."
        )
    if found := _other_fields(made, settings):
        raise InputError(
            f"{folder}: the id table was made for another schema ({'; '.join(found)}). "
            f"Make it again with {COMMAND} and this schema, or give the one that it was made for."
        )
    if found := _differences(made, settings):
        raise InputError(
            f"{folder}: the id table does not fit the configuration ({'; '.join(found)}). "
            f"Make it again with {COMMAND} and this configuration, or use the one that it was made with."
        )
    fs, path = filesystem(folder)
    return Reference(path=fs.unstrip_protocol(path), digest=manifest["digest"])


def _other_fields(made: IdSettings, wanted: IdSettings) -> list[str]:
    """The fields that only one of two schemas has, as text."""
    sides = (("table", made, wanted), ("schema", wanted, made))
    only = ((side, [name for name in one.buckets if name not in other.buckets]) for side, one, other in sides)
    return [f"only in the {side}: field {', '.join(names)}" for side, names in only if names]


def _differences(made: IdSettings, wanted: IdSettings) -> list[str]:
    """Every setting of the fields with a table that differs, as text."""
    found = []
    if made.hash_seed != wanted.hash_seed:
        found.append(f"hash_seed: table {made.hash_seed}, configuration {wanted.hash_seed}")
    for name in made.buckets:
        if {made.mode(name), wanted.mode(name)} == {"hash"}:
            continue
        both = [_field_text(settings, name) for settings in (made, wanted)]
        if both[0] != both[1]:
            found.append(f"field {name}: table {both[0]}, configuration {both[1]}")
    return found


def _field_text(settings: IdSettings, name: str) -> str:
    mode, least, buckets = _field_settings(settings, name)
    return f"{mode} from count {least}, {buckets} buckets"
