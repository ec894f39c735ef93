"""The users' sums beside metrics.json: one Parquet file per shard, written and compared by Spark's tasks.

They are what every interval is made of, so that another evaluation of the same impressions, or of other
days, can be judged together with this one without its predictions.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli.errors import InputError
from jobs.evaluation.blobs import Arrays
from jobs.evaluation.gram import COLUMNS, matrix_of
from schemas.metrics import TASKS
from storage import outputs
from storage.filesystems import filesystem

MANIFEST_NAME = "_manifest.json"
OUTPUT = outputs.Kind(
    content="sums of users",
    manifest=MANIFEST_NAME,
    keys=frozenset(("digest", "shards", "tasks")),
    names=r"part-\d+\.parquet",
)

SCHEMA = pa.schema([("user", pa.uint64()), *((name, pa.int64()) for name in COLUMNS)])


def folder_of(metrics: str) -> str:
    """The folder beside a metrics.json."""
    return f"{metrics.removesuffix('.json')}.users"


class Task(NamedTuple):
    """What the task of a shard is told. classes: positives and negatives per task; against: the folder of
    another evaluation's sums, or None."""

    folder: str
    against: str | None
    classes: dict[str, tuple[int, int]]

    def store(self, part: int, sums: Arrays) -> Arrays:
        """Write a shard's sums; what the driver needs of them, and of the other evaluation's beside them."""
        _write(f"{self.folder}/{_name(part)}", sums)
        ours = matrix_of(sums, self.classes)
        both = ours
        if self.against is not None:
            theirs = _read(f"{self.against}/{_name(part)}", sums["user"])
            both = np.concatenate([ours, matrix_of(theirs, self.classes)], axis=1)
        users = [np.count_nonzero(sums[f"{task}_rows"]) for task in TASKS]
        return {"gram": (both.T @ both).ravel(), "sums": both.sum(axis=0), "users": np.array(users)}


def _name(part: int) -> str:
    return f"part-{part:05d}.parquet"


def _write(path: str, sums: Arrays) -> None:
    fs, target = filesystem(path)
    table = pa.table({name: sums[name] for name in SCHEMA.names}, schema=SCHEMA)
    with fs.open(target, "wb") as stream:
        pq.write_table(table, stream, compression="zstd")


def _read(path: str, users: np.ndarray) -> Arrays:
    fs, source = filesystem(path)
    with fs.open(source, "rb") as stream:
        table = pq.read_table(stream)
    found: dict[str, Any] = {name: table[name].to_numpy() for name in table.column_names}
    if set(found) != set(SCHEMA.names) or not np.array_equal(found["user"], users):
        raise InputError(f"{path}: expected the sums of the same users, found others. Evaluate both anew.")
    return found
