"""Predictions and truth as evaluation reads them: whole, well-formed and of the same impressions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.session import spark_path
from schemas import storage
from schemas.errors import InputError
from schemas.predictions import arrow_schema

TRUTH_COLUMNS = ("sample_id", "p_ctr", "p_cvr")
LABELS = ("click", "conversion")
PROBABILITIES = ("p_ctr", "p_cvr", "p_ctcvr")


class Rule(NamedTuple):
    """What a row must not be. broken: true, false, never null. value: shown for the example row."""

    expected: str
    broken: Column
    value: Column


def check_paths(predictions: str, truth: str | None) -> None:
    """Stop before Spark starts where the predictions are not published or the truth is no such file."""
    storage.require_published(predictions, "predictions", "esmm.predict")
    fs, path = storage.filesystem(predictions)
    if not fs.glob(f"{path}/*.parquet"):
        raise InputError(
            f"{predictions}: expected Parquet files inside, found none. "
            "Give the --out folder of esmm.predict."
        )
    if truth is not None:
        _check_truth_header(truth)


def _check_truth_header(truth: str) -> None:
    fs, pattern = storage.filesystem(truth)
    files = [path for path in fs.glob(pattern) if fs.isfile(path)]
    if not files:
        raise InputError(
            f"{truth}: expected a truth file, found none. jobs.make_demo_logs writes truth_<split>.csv."
        )
    expected = ",".join(TRUTH_COLUMNS)
    for path in files:
        with fs.open(path, "r", compression="infer", errors="replace") as stream:
            header = stream.readline(200).strip()
        if header != expected:
            raise InputError(
                f"{path}: expected the header {expected}, found {header!r}. Give a truth_<split>.csv."
            )


def read_predictions(spark: SparkSession, path: str) -> DataFrame:
    """sample_id, labels and probabilities of published predictions, checked, else an `InputError`."""
    with _readable(path):
        rows = spark.read.parquet(spark_path(path))
        _check_columns(rows, path)
        rows = rows.select("sample_id", *LABELS, *PROBABILITIES)
        _check_rows(rows, path, _prediction_rules(), "Run esmm.predict again.")
    return rows


def _check_columns(rows: DataFrame, path: str) -> None:
    found = {column.name: column.dataType.simpleString() for column in rows.schema}
    wrong = [
        f"{column.name} {column.dataType.simpleString()} (found {found.get(column.name, 'none')})"
        for column in from_arrow_schema(arrow_schema())
        if found.get(column.name) != column.dataType.simpleString()
    ]
    if wrong:
        raise InputError(
            f"{path}: expected columns {', '.join(wrong)}. Give a folder written by esmm.predict."
        )


def _prediction_rules() -> list[Rule]:
    click, conversion = F.col("click"), F.col("conversion")
    both = F.format_string("click=%s conversion=%s", click.cast("string"), conversion.cast("string"))
    rules = [Rule("a sample_id", F.col("sample_id").isNull(), F.lit("null"))]
    for name in LABELS:
        valid = F.coalesce(F.col(name).isin(0, 1), F.lit(False))
        rules.append(Rule(f"{name} 0 or 1", ~valid, F.col(name)))
    unclicked = F.coalesce((click == 0) & (conversion == 1), F.lit(False))
    rules.append(Rule("conversion=1 only with click=1", unclicked, both))
    rules += [_probability_rule(name) for name in PROBABILITIES]
    return rules


def _probability_rule(name: str) -> Rule:
    # NaN is greater than everything in Spark, so `between` refuses it.
    valid = F.coalesce(F.col(name).between(0, 1), F.lit(False))
    return Rule(f"{name} in [0, 1]", ~valid, F.col(name))


def _check_rows(rows: DataFrame, path: str, rules: list[Rule], advice: str) -> int:
    """Number of rows; an `InputError` with count and example for the first rule that some row breaks."""
    columns = [F.count(F.lit(1)).alias("rows")]
    for index, rule in enumerate(rules):
        example = F.when(
            rule.broken,
            F.struct("sample_id", F.coalesce(rule.value.cast("string"), F.lit("null")).alias("value")),
        )
        columns += [
            F.count_if(rule.broken).alias(f"broken_{index}"),
            F.min(example).alias(f"example_{index}"),
        ]
    found = rows.agg(*columns).collect()[0]
    if not found["rows"]:
        raise InputError(f"{path}: expected at least one row, found none. {advice}")
    for index, rule in enumerate(rules):
        if found[f"broken_{index}"]:
            example = found[f"example_{index}"]
            raise InputError(
                f"{path}: expected {rule.expected}, found {found[f'broken_{index}']} of {found['rows']} rows "
                f"without, for example sample_id {example['sample_id']}: {example['value']}. {advice}"
            )
    return int(found["rows"])


def read_truth(spark: SparkSession, path: str) -> DataFrame:
    """(sample_id, true_p_ctr, true_p_cvr) from a csv file or glob with a checked header."""
    lines = spark.read.csv(_csv_paths(path), schema="sample_id long, p_ctr double, p_cvr double", header=True)
    rules = [Rule("a whole sample_id", F.col("sample_id").isNull(), F.lit("not a number"))]
    rules += [_probability_rule(name) for name in TRUTH_COLUMNS[1:]]
    _check_rows(lines, path, rules, "Make the demo logs again.")
    return lines.select("sample_id", *(F.col(name).alias(f"true_{name}") for name in TRUTH_COLUMNS[1:]))


def _csv_paths(pattern: str) -> list[str]:
    # Spark warns with a stack trace about a pattern of local files, not about their list.
    if "://" in pattern:
        return [pattern]
    fs, local = storage.filesystem(pattern)
    return [spark_path(path) for path in sorted(fs.glob(local))]


def with_truth(predictions: DataFrame, truth: DataFrame, predictions_path: str, truth_path: str) -> DataFrame:
    """Each prediction with its truth; an `InputError` unless they cover exactly the same impressions."""
    left = predictions.withColumn("predicted", F.lit(1))
    joined = left.join(truth.withColumn("known", F.lit(1)), "sample_id", "full_outer").persist()
    advice = f"Give the predictions and the truth of the same split, not {predictions_path} and {truth_path}."
    rules = [
        Rule("a truth line for every prediction", F.col("known").isNull(), F.lit("only predicted")),
        Rule("a prediction for every truth line", F.col("predicted").isNull(), F.lit("only in the truth")),
    ]
    rows = _check_rows(joined, truth_path, rules, advice)
    for name, side, path in (("predictions", predictions, predictions_path), ("truth", truth, truth_path)):
        count = side.count()
        if count != rows:
            raise InputError(
                f"{path}: expected each sample_id once, found {count} {name} for {rows} pairs. {advice}"
            )
    return joined.drop("predicted", "known")


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn Spark's complaint about a file that is not Parquet into an `InputError`."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        if "FAILED_READ_FILE" in text or "CANNOT_READ_FILE_FOOTER" in text:
            raise InputError(
                f"{path}: expected Parquet files, found one that is not. Run esmm.predict again."
            ) from error
        raise
