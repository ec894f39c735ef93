"""From checked arguments to metrics.json: what Spark is asked, in order, and what comes of it."""

import logging
import posixpath
from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from cli.errors import InputError
from cli.version import WRITTEN_BY
from jobs.evaluation import inputs, judging, stages, truth
from jobs.evaluation.blobs import Arrays
from jobs.evaluation.comparison import against_of, pair_of
from jobs.evaluation.cuts import Cut
from jobs.evaluation.document import Sums, metrics_of
from jobs.evaluation.gram import WIDTH
from jobs.evaluation.judging import Judged
from jobs.evaluation.pack import num_shards
from jobs.evaluation.prediction_files import Piece
from jobs.evaluation.rankings import Totals
from jobs.evaluation.sums_files import MANIFEST_NAME, OUTPUT, Task, folder_of
from jobs.evaluation.training import Training, items_of
from jobs.evaluation.values import frequent_values
from schemas.metrics import (
    FORMAT,
    TASKS,
    Metrics,
    PredictionSource,
)
from schemas.predictions import KEPT_FIELD, Manifest, read_manifest
from storage import outputs, staging
from storage.filesystems import filesystem
from storage.json_files import read_json, write_json

LOG = logging.getLogger(__name__)


class Options(NamedTuple):
    """What an evaluation is told; `jobs.evaluate --help` says what each option means."""

    predictions: str
    out: str
    truth: str | None
    against: str | None
    cuts: list[Cut]
    training: Training | None = None


class Other(NamedTuple):
    """Another evaluation: its metrics.json's place, the folder of its users' sums, and what that says."""

    metrics: str
    folder: str
    manifest: dict[str, Any]


def read_other(path: str) -> Other:
    """Another evaluation of `--against`; an `InputError` where it is none, or none with users' sums."""
    fs, target = filesystem(path)
    metrics = posixpath.join(path, "metrics.json") if fs.isdir(target) else path
    if read_json(metrics).get("format") != FORMAT:
        raise InputError(
            f"{metrics}: expected an evaluation of format {FORMAT}, found another one. Run jobs.evaluate on "
            "its predictions again."
        )
    folder = folder_of(metrics)
    manifest = read_json(f"{folder}/{MANIFEST_NAME}")
    missing = OUTPUT.keys - manifest.keys()
    if missing:
        raise InputError(f"{folder}: expected sums of users, found none. Run jobs.evaluate again.")
    return Other(metrics, folder, manifest)


def evaluate(spark: SparkSession, options: Options) -> Metrics:
    """All metrics of some predictions, written whole to `options.out` with the users' sums beside."""
    other = read_other(options.against) if options.against else None
    manifest = read_manifest(options.predictions)
    plan = _plan(spark, options, manifest)
    LOG.info("computing the metrics of %s", options.predictions)
    dealt = stages.dealt(_packed(spark, options, plan), plan)
    try:
        with inputs.readable(options.predictions):
            found = stages.collect_totals(dealt)
        counts = [int(found[name][0]) if name in found else 0 for name in ("rows", "broken", "repeated")]
        inputs.require_sound(spark, options.predictions, *counts)
        source = _source(options, manifest, found)
        if other is not None:
            _require_same(other, source, plan.shards, options.predictions)
        return _write(dealt, plan, found, source, options, other)
    finally:
        dealt.unpersist()


def _plan(spark: SparkSession, options: Options, manifest: Manifest) -> stages.Plan:
    shards, cuts, training = num_shards(manifest["rows"]), _known(spark, options), options.training
    if training is None:
        return stages.Plan(shards, cuts)
    LOG.info("counting users and items of the training samples")
    return stages.Plan(shards, [*cuts, *training.cuts], training, items_of(spark, training))


def _known(spark: SparkSession, options: Options) -> list[Cut]:
    """The cuts, whose columns the predictions must have; those without bounds get their values."""
    kept = inputs.kept_fields(options.predictions)
    missing = [cut.column for cut in options.cuts if cut.column is not None and cut.column not in kept]
    if missing:
        names = " ".join(f"--keep {name.removeprefix(KEPT_FIELD)}" for name in missing)
        raise InputError(
            f"{options.predictions}: expected columns {', '.join(missing)}, found none. Predict again with "
            f"{names}."
        )
    by_value = [cut.column for cut in options.cuts if cut.column is not None and not cut.bounds]
    values = frequent_values(spark, _work(spark, options), list(dict.fromkeys(by_value)))
    return [cut._replace(values=values.get(cut.column or "", ())) for cut in options.cuts]


def _work(spark: SparkSession, options: Options) -> list[list[Piece]]:
    return inputs.work_of(options.predictions, spark.sparkContext.defaultParallelism)


def _packed(spark: SparkSession, options: Options, plan: stages.Plan) -> DataFrame:
    if options.truth is None:
        return stages.packed(spark, _work(spark, options), plan)
    rows = inputs.open_predictions(spark, options.predictions)
    known = truth.read_truth(spark, options.truth, rows)
    joined = truth.with_truth(rows, known, options.predictions, options.truth)
    return stages.packed_with_truth(joined, plan)


def _source(options: Options, manifest: Manifest, found: Arrays) -> PredictionSource:
    source = PredictionSource(
        predictions=options.predictions,
        truth=options.truth,
        run=manifest.get("run"),
        step=manifest.get("step"),
        digest=f"{int(found['digest'][0]):016x}",
    )
    if options.training is not None:
        source["train"] = options.training.folder
    if "calibration" in manifest:
        source["calibration"] = manifest["calibration"]
    return source


def _require_same(other: Other, source: PredictionSource, shards: int, predictions: str) -> None:
    theirs = (other.manifest["digest"], other.manifest["shards"])
    if theirs != (source["digest"], shards):
        raise InputError(
            f"{other.metrics}: expected an evaluation of the impressions of {predictions} with their labels "
            f"(digest {source['digest']}), found one of others (digest {theirs[0]}). Both runs have to "
            "predict the same samples."
        )


def _write(
    dealt: DataFrame,
    plan: stages.Plan,
    found: Arrays,
    source: PredictionSource,
    options: Options,
    other: Other | None,
) -> Metrics:
    """The rankings, the users' sums in their place, and metrics.json last."""
    totals = judging.totals_of(found, plan.cuts)
    folder = folder_of(options.out)
    outputs.refuse_foreign(folder, OUTPUT)
    with staging.beside(folder) as staged:
        classes = {task: totals[task].classes for task in TASKS}
        task = Task(staged, other.folder if other else None, classes)
        ended = stages.finish(dealt, stages.ranked(dealt, plan, totals), plan, task)
        _require_written(staged, len(ended.grams), options.out)
        judged, grams = _judge(totals, ended)
        metrics = metrics_of(judged, Sums(found, totals, ended.summaries), plan.cuts, source)
        if other is not None:
            metrics["against"] = against_of(other.metrics, _pairs(judged, other, ended, grams, totals))
        write_json(f"{staged}/{MANIFEST_NAME}", _sums_manifest(judged, source, plan))
        outputs.publish(staged, folder, OUTPUT, overwrite=True)
    write_json(options.out, dict(metrics))
    return metrics


def _require_written(staged: str, parts: int, out: str) -> None:
    """Executors on other machines would write into folders of theirs."""
    fs, path = filesystem(staged)
    found = len(fs.glob(f"{path}/part-*.parquet"))
    if found != parts:
        raise InputError(
            f"{out}: expected {parts} files of users' sums from the executors, found {found}. Give a place "
            "for --out that driver and executors share, such as hdfs://."
        )


class Grams(NamedTuple):
    """Over all users. gram [K, K], sums [K]: K columns of ours, and as many of theirs where there are any."""

    gram: np.ndarray
    sums: np.ndarray
    users: np.ndarray


def _judge(totals: dict[str, Totals], ended: stages.Found) -> tuple[dict[str, Judged], Grams]:
    sums = np.sum([part["sums"] for part in ended.grams], axis=0)
    gram = np.sum([part["gram"] for part in ended.grams], axis=0).reshape(len(sums), -1)
    users = np.sum([part["users"] for part in ended.grams], axis=0)
    judged = {
        task: judging.judge(task, totals[task], ended.summaries.get(task, {}), sums, gram, int(users[place]))
        for place, task in enumerate(TASKS)
    }
    return judged, Grams(gram, sums, users)


def _sums_manifest(judged: dict[str, Judged], source: PredictionSource, plan: stages.Plan) -> dict[str, Any]:
    """What another evaluation needs beside the users' sums to be compared with this one."""
    return {
        "digest": source["digest"],
        "shards": plan.shards,
        "tasks": {task: judging.stored_of(judged[task]) for task in TASKS},
        "written_by": WRITTEN_BY,
    }


def _pairs(
    judged: dict[str, Judged],
    other: Other,
    ended: stages.Found,
    grams: Grams,
    totals: dict[str, Totals],
) -> dict[str, Any]:
    half = len(TASKS) * WIDTH
    pairs = {}
    for place, task in enumerate(TASKS):
        theirs = judging.judge_stored(
            task,
            totals[task],
            other.manifest["tasks"][task],
            grams.sums[half:],
            grams.gram[half:, half:],
            int(grams.users[place]),
        )
        pairs[task] = pair_of(task, judged[task], theirs, grams.gram)
    return pairs
