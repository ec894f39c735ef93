"""The predictions: one Parquet row per impression."""

from typing import TYPE_CHECKING

from schemas import outputs
from schemas.samples import MANIFEST_NAME

if TYPE_CHECKING:
    import pyarrow as pa

OUTPUT = outputs.Kind(
    content="predictions",
    manifest=MANIFEST_NAME,
    keys=frozenset(("rows", "run", "step")),
    names=r"part-\d+\.parquet",
)


def arrow_schema() -> "pa.Schema":
    """sample_id, context_id, user_id (raw, null if absent), labels and the three probabilities."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("sample_id", pa.int64(), nullable=False),
            pa.field("context_id", pa.string(), nullable=False),
            pa.field("user_id", pa.int64(), nullable=True),
            pa.field("click", pa.int8(), nullable=False),
            pa.field("conversion", pa.int8(), nullable=False),
            pa.field("p_ctr", pa.float32(), nullable=False),
            pa.field("p_cvr", pa.float32(), nullable=False),
            pa.field("p_ctcvr", pa.float32(), nullable=False),
        ]
    )
