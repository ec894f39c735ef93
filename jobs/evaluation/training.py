"""The samples that a model was trained on, as evaluation reads them: users and items with their counts."""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from cli.errors import InputError
from cli.nearest import did_you_mean
from jobs.evaluation.blobs import SPARK_SCHEMA, Arrays, Blob, at_positions, decode, joined
from jobs.evaluation.cuts import Cut
from jobs.evaluation.history import SEEN_ITEM, SEEN_USER, Items, added_by, rated
from jobs.evaluation.pack import BEFORE, deal
from jobs.evaluation.rows import hashes_of
from jobs.sample_files import read_batches
from schemas import manifest
from schemas.fields import Field
from schemas.predictions import KEPT_FIELD, Manifest
from schemas.schema import Schema

LOG = logging.getLogger(__name__)


class Training(NamedTuple):
    """Their files. item: the field whose buckets are items, where one is told. bounds: of the slices."""

    folder: str
    files: list[str]
    item: Field | None
    bounds: tuple[int, ...]

    @property
    def cuts(self) -> list[Cut]:
        """Slices by how often users and items were seen."""
        found = [Cut("training impressions of the user", SEEN_USER, self.bounds)]
        if self.item is not None:
            found.append(Cut(f"training impressions of the item ({self.item.name})", SEEN_ITEM, self.bounds))
        return found


def training_of(
    folder: str, item: str | None, bounds: tuple[int, ...], predictions: str, told: Manifest
) -> Training:
    """Published samples; an `InputError` where the item is no field of theirs that predictions have kept.

    item: None: that of the schema, if it was kept. told: the manifest of the predictions.
    """
    content = manifest.read(folder)
    files = [f"{folder}/{file['name']}" for file in content["files"]]
    schema, kept = manifest.schema_of(content), told.get("kept", [])
    if item is None and schema.item_id not in kept:
        LOG.info("no slices by item: esmm.predict --keep %s would keep it", schema.item_id or "FIELD")
        return Training(folder, files, None, bounds)
    item = item or str(schema.item_id)
    field = _item_of(folder, schema, item)
    if item not in kept:
        raise InputError(
            f"{predictions}: expected a column {KEPT_FIELD}{item}, the item's, found none. "
            f"Predict again with --keep {item}."
        )
    theirs = Schema.from_dict(told["schema"]) if "schema" in told else schema
    buckets = {one.name: one.buckets for one in theirs.fields}
    if buckets.get(item) != field.buckets:
        raise InputError(
            f"{folder}: expected {item} in {buckets.get(item)} buckets as in {predictions}, found "
            f"{field.buckets}. Give the samples that the model was trained on."
        )
    return Training(folder, files, field, bounds)


def _item_of(folder: str, schema: Schema, item: str) -> Field:
    if item not in schema.index:
        raise InputError(
            f"{folder}: expected a field {item}, the item's, found none{did_you_mean(item, schema.index)}."
        )
    field = schema.fields[schema.index[item]]
    if field.multi or not field.per_impression:
        raise InputError(
            f"{folder}: expected an item, a field with one value per impression, found {item}, which has "
            f"{'several values' if field.multi else 'one value per context'}. Name another field as item."
        )
    return field


def items_of(spark: SparkSession, training: Training) -> Items | None:
    """Counts and rates of all items of the training samples, in one pass over three of their columns."""
    item = training.item
    if item is None:
        return None
    columns = {"bucket": item.column, "clicks": "click", "conversions": "conversion"}

    def count(path: str) -> Iterator[Blob]:
        counted = [
            {name: batch.column(column).flatten().to_numpy() for name, column in columns.items()}
            for batch in read_batches(path, list(columns.values()))
        ]
        if counted:
            rows = joined(counted)
            rows["impressions"] = np.ones(len(rows["bucket"]), np.int64)
            yield Blob(0, 0, 0, added_by("bucket", rows))

    blobs = [decode(row["blob"]) for row in _by_file(spark, training.files, count).select("blob").collect()]
    return rated(f"{KEPT_FIELD}{item.name}", joined(blobs))


def users_of(spark: SparkSession, training: Training, shards: int) -> DataFrame:
    """Blobs of the users of the training samples, dealt to the shards of those that are judged."""

    def count(path: str) -> Iterator[Blob]:
        counted = [_users_in(batch) for batch in read_batches(path, ["user_id", "click"])]
        if counted:
            found = added_by("user", joined(counted))
            yield from deal(BEFORE, 0, found, found["user"] % np.uint64(shards), shards)

    return _by_file(spark, training.files, count)


def _users_in(batch: pa.RecordBatch) -> Arrays:
    """user and impressions per row that has a user."""
    known = batch.filter(batch.column("user_id").is_valid())
    offsets = known.column("click").offsets.to_numpy()
    users = pa.chunked_array([known.column("user_id")])
    return {"user": hashes_of(users), "impressions": np.diff(offsets).astype(np.int64)}


def _by_file(spark: SparkSession, files: list[str], count: Callable[[str], Iterator[Blob]]) -> DataFrame:
    """The blobs that `count` makes of every file."""

    parts = min(len(files), 4 * spark.sparkContext.defaultParallelism)
    return spark.range(0, len(files), 1, max(1, parts)).mapInArrow(
        at_positions(lambda position: count(files[position])), SPARK_SCHEMA
    )
