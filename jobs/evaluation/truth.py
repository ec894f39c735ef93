"""The truth of demo logs beside predictions: of the same impressions, or not at all."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cli.errors import InputError
from jobs.evaluation.inputs import Rule, check_rows, probability_rule
from jobs.session import spark_path
from schemas import truth as truth_file
from storage.filesystems import filesystem


def check_truth(truth: str) -> None:
    """Stop before Spark starts where the truth is no file with its header."""
    fs, pattern = filesystem(truth)
    files = [path for path in fs.glob(pattern) if fs.isfile(path)]
    if not files:
        raise InputError(
            f"{truth}: expected a truth file, found none. jobs.make_demo_logs writes truth_<split>.csv."
        )
    for path in files:
        with fs.open(path, "r", compression="infer", errors="replace") as stream:
            header = stream.readline(200).strip()
        if header != truth_file.HEADER:
            raise InputError(
                f"{path}: expected the header {truth_file.HEADER}, found {header!r}. "
                "Give a truth_<split>.csv."
            )


def read_truth(spark: SparkSession, path: str, predictions: DataFrame) -> DataFrame:
    """(sample_id, true_p_ctr, true_p_cvr) from a csv file or glob with a checked header.

    Its sample_ids are numbers or text as those of the predictions are.
    """
    leaf = predictions.schema["sample_id"].dataType.simpleString()
    columns = f"sample_id {leaf}, p_ctr double, p_cvr double"
    lines = spark.read.csv(_csv_paths(path), schema=columns, header=True, escape='"')
    what, problem = ("a sample_id", "none") if leaf == "string" else ("a whole sample_id", "not a number")
    rules = [Rule(what, F.col("sample_id").isNull(), F.lit(problem))]
    rules += [probability_rule(name) for name in truth_file.COLUMNS[1:]]
    check_rows(lines, path, rules, "Make the demo logs again.")
    return lines.select("sample_id", *(F.col(name).alias(f"true_{name}") for name in truth_file.COLUMNS[1:]))


def _csv_paths(pattern: str) -> list[str]:
    # Spark warns with a stack trace about a pattern of local files, not about their list.
    if "://" in pattern:
        return [pattern]
    fs, local = filesystem(pattern)
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
    num_pairs = check_rows(joined, truth_path, rules, advice)
    num_predictions = predictions.count()
    if num_pairs != num_predictions:  # each prediction has a sample_id of its own
        raise InputError(
            f"{truth_path}: expected each sample_id once, found {num_pairs} lines for {num_predictions} "
            f"predictions. {advice}"
        )
    return joined.drop("predicted", "known")
