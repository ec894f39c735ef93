"""The predictions: one Parquet row per impression, and a manifest of their files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

from cli.errors import InputError
from schemas.calibration import Calibration
from schemas.samples import MANIFEST_NAME, ColumnType
from schemas.schema import Schema
from storage import outputs
from storage.filesystems import filesystem
from storage.json_files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

OUTPUT = outputs.Kind(
    content="predictions",
    manifest=MANIFEST_NAME,
    keys=frozenset(("rows", "run", "step")),
    names=r"part-\d+\.parquet",
)


LABELS = ("click", "conversion")
PROBABILITIES = ("p_ctr", "p_cvr", "p_ctcvr")
KEPT_ID: tuple[ColumnType, ...] = ("int64", "string")  # which of them the samples' schema says
TYPES: dict[str, tuple[ColumnType, ...]] = {
    "sample_id": KEPT_ID,
    "context_id": ("string",),
    "user_id": KEPT_ID,
    "click": ("int8",),
    "conversion": ("int8",),
    "p_ctr": ("float32",),
    "p_cvr": ("float32",),
    "p_ctcvr": ("float32",),
}
KEPT_FIELD = "field_"  # begins the columns of fields that predictions have kept


class FileRows(TypedDict):
    """One Parquet file and its rows."""

    name: str
    rows: int


class Manifest(TypedDict):
    """`_manifest.json` of predictions: what evaluation holds their files against."""

    rows: int  # of all files together
    files: NotRequired[list[FileRows]]  # predictions of the first releases have none
    run: NotRequired[str]
    step: NotRequired[int]
    epoch: NotRequired[int]
    schema: NotRequired[dict[str, Any]]  # `Schema.to_dict` of the samples; not in the first releases
    kept: NotRequired[list[str]]  # names of the fields that have a column; absent where there are none
    calibration: NotRequired[Calibration]  # that the probabilities have gone through, if any
    written_by: NotRequired[str]  # name and version; not in the first releases


def read_manifest(folder: str) -> Manifest:
    """The manifest of some predictions, or an `InputError` that also says what another model's need."""
    fs, path = filesystem(folder)
    content = read_json(f"{folder}/{MANIFEST_NAME}") if fs.exists(f"{path}/{MANIFEST_NAME}") else {}
    if type(content.get("rows")) is not int:
        raise InputError(
            f"{folder}: expected predictions ({MANIFEST_NAME} inside that counts their rows), found a folder "
            "of something else. Give the --out folder of esmm.predict; predictions of another model need "
            f'a {MANIFEST_NAME} too: {{"rows": N}}.'
        )
    return cast(Manifest, content)


def arrow_schema(schema: Schema, kept: Sequence[str] = ()) -> "pa.Schema":
    """sample_id, context_id, user_id (raw, null if absent), labels, the three probabilities, kept fields.

    kept: names of fields; of one that has one value its bucket (0 missing), else how many ids there are.
    """
    import pyarrow as pa

    types = {name: allowed[0] for name, allowed in TYPES.items()}
    types |= {"sample_id": schema.sample_id_type, "user_id": schema.user_id_type}
    types |= {f"{KEPT_FIELD}{name}": "int32" for name in kept}
    return pa.schema(
        [pa.field(name, pa.type_for_alias(leaf), nullable=name == "user_id") for name, leaf in types.items()]
    )
