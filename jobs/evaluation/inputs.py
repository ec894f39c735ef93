"""Predictions as evaluation reads them: whole and well-formed."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import NamedTuple

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_type

from cli.errors import InputError
from jobs.evaluation.pack import ROWS_PER_PIECE
from jobs.evaluation.prediction_files import Piece, not_parquet, pieces_of, row_groups, types_of
from jobs.evaluation.rows import PRODUCT_TOLERANCE, SMALLEST_PRODUCT
from jobs.session import spark_path
from schemas.predictions import KEPT_FIELD, LABELS, PROBABILITIES, TYPES, read_manifest
from schemas.samples import MANIFEST_NAME
from storage import publishing
from storage.filesystems import filesystem

ROWS_PER_TASK = 1 << 22


class Rule(NamedTuple):
    """What a row must not be. broken: true, false, never null. value: shown for the example row."""

    expected: str
    broken: Column
    value: Column


def check_paths(predictions: str) -> None:
    """Stop before Spark starts where predictions are not published or not whole."""
    publishing.require_published(predictions, "predictions", "esmm.predict")
    if not _parquet_files(predictions):
        raise InputError(
            f"{predictions}: expected Parquet files inside, found none. "
            "Give the --out folder of esmm.predict."
        )
    require_whole(predictions)
    _check_columns(predictions)


def _parquet_files(folder: str) -> list[str]:
    """Names of the files, in order; those that begin with _ or . hold something else."""
    fs, path = filesystem(folder)
    names = sorted(file.rpartition("/")[2] for file in fs.glob(f"{path}/*.parquet"))
    return [name for name in names if name[0] not in "._"]


def require_whole(folder: str) -> None:
    """Compare the files and their rows, as their footers count them, with the predictions' manifest.

    Predictions of the first releases name only the rows of all files together.
    """
    content = read_manifest(folder)
    found = {name: sum(row_groups(f"{folder}/{name}")) for name in _parquet_files(folder)}
    wrong = []
    if "files" in content:
        expected = {file["name"]: file["rows"] for file in content["files"]}
        wrong += [
            f"{name}: expected {_rows_text(expected.get(name))}, found {_rows_text(found.get(name))}"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
    elif sum(found.values()) != content["rows"]:
        wrong.append(
            f"expected {content['rows']:,} rows, found {sum(found.values()):,} in {len(found)} file(s)"
        )
    if wrong:
        lines = "".join(f"\n  {text}" for text in wrong)
        raise InputError(
            f"{folder}: its files are not those that its {MANIFEST_NAME} names:{lines}\n"
            "Put back what is missing and take away what is foreign, or run esmm.predict again."
        )


def _rows_text(rows: int | None) -> str:
    return "no such file" if rows is None else f"{rows:,} rows"


def work_of(folder: str, parallelism: int) -> list[list[Piece]]:
    """The files of checked predictions, dealt in order to tasks that a core has several of."""
    rows = {f"{folder}/{name}": row_groups(f"{folder}/{name}") for name in _parquet_files(folder)}
    whole = sum(sum(groups) for groups in rows.values())
    most = max(1, min(ROWS_PER_TASK, -(-whole // parallelism)))
    work: list[list[Piece]] = []
    room = 0
    for path, groups in rows.items():
        for piece in pieces_of(path, groups, ROWS_PER_PIECE):
            if not work or room <= 0:
                work.append([])
                room = most
            work[-1].append(piece)
            room -= sum(groups[piece.first : piece.first + piece.num])
    return work


def kept_fields(folder: str) -> list[str]:
    """The columns of fields that predictions have kept for slices."""
    columns = types_of(f"{folder}/{_parquet_files(folder)[0]}").names
    return [name for name in columns if name.startswith(KEPT_FIELD)]


def open_predictions(spark: SparkSession, path: str) -> DataFrame:
    """The columns of predictions that evaluation reads, as Spark's; rows unchecked."""
    with readable(path):
        rows = spark.read.parquet(*(spark_path(f"{path}/{name}") for name in _parquet_files(path)))
    return rows.select("sample_id", "context_id", "user_id", *LABELS, *PROBABILITIES, *kept_fields(path))


def require_sound(spark: SparkSession, path: str, num_rows: int, num_broken: int, num_repeated: int) -> None:
    """Stop where rows are missing, break a rule or stand twice, with an example that is looked for now."""
    if num_rows and not num_broken and not num_repeated:
        return
    rows = open_predictions(spark, path)
    if not num_rows or num_broken:
        check_rows(rows, path, _prediction_rules(), "Run esmm.predict again.")
    if num_repeated:
        _require_unique(rows, path)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn Spark's complaint about a file that is not Parquet into an `InputError`."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        if "FAILED_READ_FILE" in text or "CANNOT_READ_FILE_FOOTER" in text:
            raise not_parquet(path) from error
        raise


def _require_unique(rows: DataFrame, path: str) -> None:
    """Stop where an impression is judged more than once. All sample_ids pass through a shuffle."""
    counts = rows.groupBy("sample_id").agg(F.count(F.lit(1)).alias("num"))
    again = counts.where("num > 1").orderBy("sample_id").limit(3).collect()
    if again:
        examples = ", ".join(f"{row['sample_id']} ({row['num']} rows)" for row in again)
        raise InputError(
            f"{path}: expected each sample_id once, found repeated ones, the lowest of them {examples}. "
            "Predict samples in which a sample_id stands once: jobs.profile_samples counts the others."
        )


def _check_columns(folder: str) -> None:
    for name in _parquet_files(folder):
        path = f"{folder}/{name}"
        found = {column.name: _type_name(column.type) for column in types_of(path)}
        expected = {
            column: [_type_name(pa.type_for_alias(leaf)) for leaf in leaves]
            for column, leaves in TYPES.items()
        }
        wrong = [
            f"{column} {' or '.join(leaves)} (found {found.get(column, 'none')})"
            for column, leaves in expected.items()
            if found.get(column) not in leaves
        ]
        if wrong:
            raise InputError(
                f"{path}: expected columns {', '.join(wrong)}. Give a folder written by esmm.predict."
            )


def _type_name(leaf: pa.DataType) -> str:
    return from_arrow_type(leaf).simpleString()


def _prediction_rules() -> list[Rule]:
    click = F.col("click")
    conversion = F.col("conversion")
    both = F.format_string("click=%s conversion=%s", click.cast("string"), conversion.cast("string"))
    rules = [Rule("a sample_id", F.col("sample_id").isNull(), F.lit("null"))]
    for name in LABELS:
        valid = F.coalesce(F.col(name).isin(0, 1), F.lit(False))
        rules.append(Rule(f"{name} 0 or 1", ~valid, F.col(name)))
    unclicked = F.coalesce((click == 0) & (conversion == 1), F.lit(False))
    rules.append(Rule("conversion=1 only with click=1", unclicked, both))
    rules += [probability_rule(name) for name in PROBABILITIES]
    return [*rules, _product_rule()]


def _product_rule() -> Rule:
    p_ctr, p_cvr, p_ctcvr = (F.col(name).cast("double") for name in PROBABILITIES)
    product = p_ctr * p_cvr
    apart = F.abs(p_ctcvr - product) > PRODUCT_TOLERANCE * product + SMALLEST_PRODUCT
    values = F.concat_ws(" ", *(F.concat(F.lit(f"{name}="), F.col(name)) for name in PROBABILITIES))
    return Rule("p_ctcvr = p_ctr * p_cvr", F.coalesce(apart, F.lit(False)), values)


def probability_rule(name: str) -> Rule:
    # NaN is greater than everything in Spark, so `between` refuses it.
    valid = F.coalesce(F.col(name).between(0, 1), F.lit(False))
    return Rule(f"{name} in [0, 1]", ~valid, F.col(name))


def check_rows(rows: DataFrame, path: str, rules: list[Rule], advice: str) -> int:
    """Number of rows, in one pass; an `InputError` where there are none or some row breaks a rule."""
    broken = reduce(or_, (rule.broken for rule in rules))
    columns = (F.count(F.lit(1)).alias("rows"), F.count_if(broken).alias("broken"))
    found = rows.agg(*columns).collect()[0]
    if not found["rows"]:
        raise InputError(f"{path}: expected at least one row, found none. {advice}")
    if found["broken"]:
        raise InputError(f"{path}: {_first_broken_rule(rows, rules)} {advice}")
    return int(found["rows"])


def _first_broken_rule(rows: DataFrame, rules: list[Rule]) -> str:
    """How many rows break the first rule that is broken, with an example: in a pass of its own, as it is
    seldom needed and costs as much as the sums of all metrics."""
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
    first = next(index for index in range(len(rules)) if found[f"broken_{index}"])
    example = found[f"example_{first}"]
    return (
        f"expected {rules[first].expected}, found {found[f'broken_{first}']} of {found['rows']} rows "
        f"without, for example sample_id {example['sample_id']}: {example['value']}."
    )
