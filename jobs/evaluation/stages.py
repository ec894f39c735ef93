"""The Spark half: checked predictions -> what the driver needs, in one pass over the files.

rows -- by user --> shards -- by score --> rankings -- by user --> users' sums
                      '--- totals, to the driver, before the rankings begin
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.evaluation import shards
from jobs.evaluation.blobs import SPARK_SCHEMA, Arrays, Blob, Stage, added, decode, grouped, joined, to_batch
from jobs.evaluation.cuts import Cut
from jobs.evaluation.history import Items
from jobs.evaluation.pack import BEFORE, COUNTS, ROWS, SAMPLE_IDS, Known, file_packer, packer
from jobs.evaluation.prediction_files import Piece
from jobs.evaluation.rankings import RANKINGS, Totals
from jobs.evaluation.shards import FIRST_RANKING, SUMMARY, TOTALS, USERS
from jobs.evaluation.sums_files import Task
from jobs.evaluation.training import Training, users_of

Batches = Iterable[pa.RecordBatch]

SPARK_OPTIONS = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "262144",
    "spark.sql.execution.arrow.maxBytesPerBatch": "16m",
    "spark.sql.adaptive.enabled": "false",  # as many tasks as there are parts
    "spark.driver.memory": "2g",  # in local mode all tasks sort in it
}


class Plan(NamedTuple):
    """How rows are dealt and cut. training: whose users are counted; items: what it knows of these."""

    shards: int
    cuts: list[Cut]
    training: Training | None = None
    items: Items | None = None

    @property
    def known(self) -> Known | None:
        """What is added to rows while they are packed."""
        return None if self.items is None else self.items.columns


def packed(spark: SparkSession, work: list[list[Piece]], plan: Plan) -> DataFrame:
    """Blobs of predictions as they lie in their files."""
    positions = spark.range(0, len(work), 1, max(1, len(work)))
    return positions.mapInArrow(file_packer(work, plan.shards, plan.known), SPARK_SCHEMA)


def packed_with_truth(rows: DataFrame, plan: Plan) -> DataFrame:
    """Blobs of predictions that Spark has joined with their truth."""
    return rows.mapInArrow(packer(plan.shards, plan.known), SPARK_SCHEMA)


def dealt(packed_rows: DataFrame, plan: Plan) -> DataFrame:
    """Totals, users and the rows of the rankings, kept on disk: the driver looks at the totals first."""
    if plan.training is not None:
        packed_rows = packed_rows.unionAll(users_of(packed_rows.sparkSession, plan.training, plan.shards))
    by_user = packed_rows.repartition(plan.shards, "part").sortWithinPartitions("part", "kind")
    return by_user.mapInArrow(_deal(plan), SPARK_SCHEMA).persist(StorageLevel.DISK_ONLY)


def _deal(plan: Plan) -> Stage:
    cuts, num = plan.cuts, plan.shards
    nobody: Arrays | None = None if plan.training is None else {}

    def deal(batches: Batches) -> Iterator[pa.RecordBatch]:
        before = nobody
        for kind, part, blobs in grouped(batches):
            if kind == BEFORE:
                before = joined(blob.arrays for blob in blobs)
            elif kind == ROWS:
                for blob in shards.of_rows(blobs, part, cuts, num, before):
                    yield to_batch(blob)
                before = nobody
            elif kind == SAMPLE_IDS:
                yield to_batch(Blob(TOTALS, 0, 0, {"repeated": np.array([shards.repeated(blobs)])}))
            elif kind == COUNTS:
                yield to_batch(Blob(TOTALS, 0, 0, added(blob.arrays for blob in blobs)))

    return deal


def collect_totals(shards_frame: DataFrame) -> Arrays:
    """The sums over shards of all that they count."""
    found = shards_frame.where(F.col("kind") == TOTALS).select("blob").collect()
    return added(decode(row["blob"]) for row in found)


def ranked(shards_frame: DataFrame, plan: Plan, totals: dict[str, Totals]) -> DataFrame:
    """Summaries of the rankings, and what they add to the users' sums."""
    rows = shards_frame.where(F.col("kind") >= FIRST_RANKING)
    by_score = rows.repartition(plan.shards, "kind", "part").sortWithinPartitions("kind", "part", "origin")

    def rank(batches: Batches) -> Iterator[pa.RecordBatch]:
        for kind, part, blobs in grouped(batches):
            for blob in shards.of_ranking(kind, part, list(blobs), totals):
                yield to_batch(blob)

    return by_score.mapInArrow(rank, SPARK_SCHEMA)


class Found(NamedTuple):
    """summaries: per ranking that has rows; grams: per shard of users, in their order."""

    summaries: dict[str, Arrays]
    grams: list[Arrays]


def finish(shards_frame: DataFrame, ranked_frame: DataFrame, plan: Plan, task: Task) -> Found:
    """Run the rankings, put the users' sums together and write them."""
    users = shards_frame.where(F.col("kind") == USERS)
    by_user = (
        users.unionAll(ranked_frame)
        .repartition(plan.shards, "part")
        .sortWithinPartitions(_summaries_first(), "part", "kind", "origin")
    )

    def put_together(batches: Batches) -> Iterator[pa.RecordBatch]:
        users_of: Arrays = {}
        for kind, part, blobs in grouped(batches):
            if kind == SUMMARY:
                yield to_batch(Blob(SUMMARY, part, 0, shards.summed(blobs)))
            elif kind == USERS:
                users_of = joined(blob.arrays for blob in blobs)
            else:
                sums = shards.users_sums(users_of, blobs)
                yield to_batch(Blob(USERS, part, 0, task.store(part, sums)))

    found = by_user.mapInArrow(put_together, SPARK_SCHEMA).collect()
    summaries = {RANKINGS[row["part"]]: decode(row["blob"]) for row in found if row["kind"] == SUMMARY}
    grams = {row["part"]: decode(row["blob"]) for row in found if row["kind"] == USERS}
    return Found(summaries, [grams[part] for part in sorted(grams)])


def _summaries_first() -> Column:
    return F.when(F.col("kind") == SUMMARY, 0).otherwise(1)
