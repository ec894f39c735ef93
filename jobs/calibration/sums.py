"""What a step of the fit needs of all rows: log loss, gradient and Hessian of each task, in one pass.

With x = logit(p) and q = sigmoid(a x + b) the log loss of a label y is ln(1 + e^z) - y z, z = a x + b; its
gradient is (q - y) (x, 1) and its Hessian q (1 - q) (x^2, x; x, 1).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from jobs.evaluation import inputs, prediction_files
from jobs.evaluation.blobs import SPARK_SCHEMA, Arrays, Blob, at_positions, decode
from jobs.evaluation.rows import is_sound
from schemas.calibration import HIGHEST, LOWEST, TASKS, calibrated
from schemas.predictions import LABELS, PROBABILITIES

Floats = npt.NDArray[np.float64]
Point = tuple[float, float]  # a, b
Rows = tuple[Floats, npt.NDArray[np.int8]]  # probabilities and labels of a task

COLUMNS = ("sample_id", *LABELS, *PROBABILITIES)  # what the rules of a row look at
NUM_SUMS = 6  # loss, gradient by a and b, Hessian by aa, ab, bb
NUM_COUNTS = 6  # rows, positives, lowest and highest logit of the negatives and of the positives


class Counts(NamedTuple):
    """Rows of a task with their range of logits, by label; a label without rows spans +inf to -inf."""

    rows: int
    positives: int
    lowest: tuple[float, float]
    highest: tuple[float, float]


class Sums(NamedTuple):
    """Over the rows of a task, at a point (a, b)."""

    loss: float
    gradient: Floats  # [2]
    hessian: Floats  # [2, 2]


def packed(spark: SparkSession, path: str) -> DataFrame:
    """Blobs of p_ctr, p_cvr and labels of whole predictions, kept, as every pass reads them again."""
    work = inputs.work_of(path, spark.sparkContext.defaultParallelism)

    def pack(position: int) -> Iterator[Blob]:
        for rows in prediction_files.read(work[position], COLUMNS):
            yield Blob(0, position, 0, _columns(rows))

    positions = spark.range(0, len(work), 1, max(1, len(work)))
    return positions.mapInArrow(at_positions(pack), SPARK_SCHEMA).persist(StorageLevel.MEMORY_AND_DISK)


def _columns(rows: pa.Table) -> Arrays:
    """Of the sound rows, and how many are not: the predictions of a fit have to be sound as a whole."""
    sound = is_sound(rows)
    broken = len(sound) - np.count_nonzero(sound)
    taken = rows.filter(pa.array(sound)) if broken else rows
    found = {name: taken[name].to_numpy() for name in ("p_ctr", "p_cvr", "click", "conversion")}
    return {**found, "broken": np.array([broken])}


def num_rows(frame: DataFrame) -> tuple[int, int]:
    """Rows and, of them, broken ones. frame: of `packed`."""
    parts = _collect(frame, lambda columns: [len(columns["click"]), columns["broken"][0]])
    sound, broken = (int(total) for total in parts.reshape(-1, 2).sum(0))
    return sound + broken, broken


def counted(frame: DataFrame) -> list[Counts]:
    """Of each task. frame: of `packed`."""

    def count(columns: Arrays) -> list[float]:
        return [x for p, labels in _tasks(columns) for x in _count(p, labels)]

    parts = _collect(frame, count).reshape(-1, len(TASKS), NUM_COUNTS)
    return [_counts(parts[:, task]) for task in range(len(TASKS))]


def _count(p: Floats, labels: npt.NDArray[np.int8]) -> list[float]:
    by_label = [logits(p[labels == label]) for label in (0, 1)]
    ends = [end for found in by_label for end in (found.min(initial=np.inf), found.max(initial=-np.inf))]
    return [len(labels), len(by_label[1]), *ends]


def _counts(parts: Floats) -> Counts:
    """parts: [P, NUM_COUNTS]."""
    rows, positives = (int(total) for total in parts[:, :2].sum(0))
    lowest, highest = parts[:, [2, 4]].min(0), parts[:, [3, 5]].max(0)
    return Counts(rows, positives, (lowest[0], lowest[1]), (highest[0], highest[1]))


def summed(frame: DataFrame, points: list[Point]) -> list[Sums]:
    """Of each task at its point; the blobs' own sums are added exactly, in any order."""

    def add_up(columns: Arrays) -> list[float]:
        rows = zip(_tasks(columns), points, strict=True)
        return [x for (p, labels), (a, b) in rows for x in terms(p, labels, a, b)]

    parts = _collect(frame, add_up).reshape(-1, len(TASKS), NUM_SUMS)
    return [_sums(parts[:, task]) for task in range(len(TASKS))]


def _sums(parts: Floats) -> Sums:
    """parts: [P, NUM_SUMS]."""
    loss, by_a, by_b, by_aa, by_ab, by_bb = (math.fsum(column) for column in parts.T)
    return Sums(loss, np.array([by_a, by_b]), np.array([[by_aa, by_ab], [by_ab, by_bb]]))


def terms(p: Floats, y: npt.NDArray[Any], a: float, b: float) -> list[float]:
    """The NUM_SUMS sums over rows. p: [N]. y: [N] of 0 and 1."""
    x = logits(p)
    z = a * x + b
    with np.errstate(over="ignore"):
        q = calibrated(p, a, b)
    weight = q * (1 - q)
    loss = np.logaddexp(0, z) - y * z
    every = (loss, (q - y) * x, q - y, weight * x * x, weight * x, weight)
    return [float(one.sum()) for one in every]


def logits(p: Floats) -> Floats:
    """[N] of probabilities that may be 0 or 1."""
    inside = p.clip(LOWEST, HIGHEST)
    found: Floats = np.log(inside) - np.log1p(-inside)
    return found


def _tasks(columns: Arrays) -> list[Rows]:
    """Probabilities and labels: CTR of all impressions, CVR of the clicked ones."""
    clicked = columns["click"] == 1
    p_ctr, p_cvr = columns["p_ctr"], columns["p_cvr"][clicked]
    return [
        (p_ctr.astype(np.float64), columns["click"]),
        (p_cvr.astype(np.float64), columns["conversion"][clicked]),
    ]


def _collect(frame: DataFrame, what: Callable[[Arrays], list[float]]) -> Floats:
    """[P, ...] what(columns of a blob) of the P blobs."""

    def add_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [what(decode(blob.as_buffer())) for blob in batch.column(0)]
            yield pa.RecordBatch.from_arrays([pa.array(found, pa.list_(pa.float64()))], ["values"])

    rows = frame.select("blob").mapInArrow(add_up, "values array<double>").collect()
    return np.array([row["values"] for row in rows], np.float64)
