"""Fields of the samples that predictions keep, for evaluation by slices."""

import numpy as np
import numpy.typing as npt

from cli.errors import InputError
from cli.nearest import did_you_mean
from esmm.batch import Batch
from esmm.embedding.bags import field_offsets
from schemas.schema import Schema


def require_fields(names: tuple[str, ...], schema: Schema) -> None:
    """Stop where the samples have no such field of ids, or one is named twice."""
    known = schema.index
    for place, name in enumerate(names):
        if name not in known:
            raise InputError(
                f"--keep {name}: expected a field of ids of the samples, found none of that name"
                f"{did_you_mean(name, known)}. jobs.describe_schema names a schema's fields."
            )
        if name in names[:place]:
            raise InputError(f"--keep {name}: expected each field once, found it twice. Take one away.")


def values(batch: Batch, schema: Schema, name: str) -> npt.NDArray[np.int32]:
    """[B] of each impression: the field's bucket, or how many ids it has where it may have several."""
    field = schema.fields[schema.index[name]]
    if field.per_impression:
        bags, fields = batch.impression, schema.impression_fields
    else:
        bags, fields = batch.user, schema.user_fields
    place, offsets = fields.index(field), bags.offsets.numpy()
    begin = offsets[:-1][place :: len(fields)]
    if field.multi:
        found = offsets[1:][place :: len(fields)] - begin
    else:
        found = bags.ids.numpy()[begin] - np.int32(field_offsets(schema.buckets)[name])
    return found if field.per_impression else found[batch.context_index.numpy()]
