"""docs/samples.md: its columns are those of the samples, and its queries, run out of the document itself,
give what a plain reading of the raw logs gives."""

import ast
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import build_samples, make_demo_logs, prepare_ali_ccp
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.sample_writer import rejected
from jobs.samples_config import load_samples_config
from schemas import hashing, manifest, predictions, samples
from tests.fixtures.ali_ccp import ALI_CCP

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENT = (PROJECT / "docs/samples.md").read_text()
FOLDER = "build/demo/tiny"  # as the document writes it
TINY = make_demo_logs.Options(contexts=300, list_scale=0.2)  # what `make demo SIZE=tiny` draws
POSITION = re.compile(rb"[,\x01]301\x02(\d+)\x03")
# What tells the four queries apart, in the order of the document.
NAMES = ("unnest(", "import pandas", "import polars", "SparkSession")

Rows = list[tuple[int, int, float]]


@pytest.fixture(scope="module")
def tiny(spark, tmp_path_factory) -> Path:
    """Raw logs and samples of the tiny demo, and some predictions for its test half."""
    folder = tmp_path_factory.mktemp("tiny")
    make_demo_logs.make_logs(str(folder / "raw"), TINY, processes=1, overwrite=False)
    settings = load_samples_config(str(PROJECT / "configs/demo.yaml"), ALI_CCP)
    for split in ("train", "test"):
        names = (f"{name}_{split}.csv" for name in ("sample_skeleton", "common_features"))
        files = raw_files.find_logs(*(str(folder / "raw" / name) for name in names))
        out = str(folder / f"samples/split={split}")
        build_samples.run(spark, TextLogs(files), ALI_CCP, settings, out, overwrite=False)
    write_predictions(folder)
    write_rejected_lines(folder)
    write_profiles(folder)
    return folder


def write_rejected_lines(folder: Path) -> None:
    """What is kept in samples/ of days whose logs were refused: of a split that stands, and of another."""
    for split in ("split=train", "split=broken"):
        place = Path(rejected.folder_of(str(folder / "samples" / split)))
        shutil.copytree(folder / "samples/split=train/_quarantine", place)


def write_profiles(folder: Path) -> None:
    """Beside the splits, where the README and `make ali-ccp-samples` have it: no reader may see it."""
    [in_readme] = re.findall(r"--out (samples/\S+\.json)", (PROJECT / "README.md").read_text())
    for path in (in_readme, f"samples/{prepare_ali_ccp.PROFILE_NAME}"):
        (folder / path).write_text("{}")


def write_predictions(folder: Path) -> None:
    """Any probabilities: the document joins them, it does not judge them."""
    tables = [pq.read_table(str(path)) for path in (folder / "samples/split=test").glob("part-*.parquet")]
    ids = np.concatenate([table["sample_id"].combine_chunks().flatten().to_numpy() for table in tables])
    p = np.random.default_rng(5).random(len(ids)).astype(np.float32)
    columns: dict[str, Any] = {name: np.zeros(len(ids)) for name in predictions.TYPES}
    columns |= {"sample_id": ids, "context_id": [""] * len(ids), "p_ctr": p}
    (folder / "run/predictions").mkdir(parents=True)
    table = pa.table(columns).cast(predictions.arrow_schema(ALI_CCP))
    pq.write_table(table, folder / "run/predictions/part-00000.parquet")


@pytest.fixture(scope="module")
def expected(tiny: Path) -> Rows:
    """(bucket, impressions, CTR) by position, counted in the training half's raw skeleton."""
    shown: Counter[int] = Counter()
    clicked: Counter[int] = Counter()
    buckets = manifest.read(str(tiny / "samples/split=train"))["buckets"]
    for click, position in raw_impressions(tiny / "raw/sample_skeleton_train.csv"):
        bucket = hashing.bucket("301", position, buckets["301"], 0)
        shown[bucket] += 1
        clicked[bucket] += click
    return [(bucket, shown[bucket], clicked[bucket] / shown[bucket]) for bucket in sorted(shown)]


def raw_impressions(skeleton: Path) -> list[tuple[int, int]]:
    """(click, raw id of the position) of every line whose labels do not contradict each other."""
    found = []
    for line in skeleton.read_bytes().splitlines():
        _, click, conversion, _ = line.split(b",", 3)
        position = POSITION.search(line)
        assert position is not None
        if (click, conversion) != (b"0", b"1"):
            found.append((int(click), int(position[1])))
    return found


def blocks(name: str) -> list[tuple[str, str]]:
    """(language, code) of the document's code blocks of this name."""
    found = re.findall(rf"^```(\w+) {name}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"the document has no code block {name}"
    return found


def find(pattern: str) -> str:
    """The one place of the document that fits, its group."""
    [found] = re.findall(pattern, DOCUMENT)
    return str(found)


def run(language: str, code: str, tiny: Path, variable: str = "ctr") -> Any:
    """What a code block gives, over the fixture's folder: rows of SQL, or a variable of Python."""
    code = code.replace(FOLDER, str(tiny))
    if language == "sql":
        return by_duckdb(code)[1]
    names: dict[str, Any] = {}
    exec(code, names)
    return names[variable]


def by_duckdb(query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows. In a process of its own: in this one DuckDB ends with pages about leaked types."""
    script = (
        "import duckdb, sys; found = duckdb.connect().sql(sys.argv[1]); "
        "print((found.columns, found.fetchall()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, query], check=True, stdout=subprocess.PIPE, text=True
    )
    columns, rows = ast.literal_eval(done.stdout)
    return columns, rows


def run_sql(name: str, tiny: Path) -> list[tuple[Any, ...]]:
    [(language, code)] = blocks(name)
    assert language == "sql"
    rows: list[tuple[Any, ...]] = run(language, code, tiny)
    return rows


def as_rows(result: Any) -> Rows:
    """The rows of DuckDB, pandas, polars or Spark; their columns are checked where they have names."""
    if isinstance(result, list):
        return [(int(bucket), int(count), float(ctr)) for bucket, count, ctr in result]
    assert list(result.columns) == ["context_301", "impressions", "ctr"]
    if hasattr(result, "collect"):  # Spark
        return [(row[0], row[1], row[2]) for row in result.collect()]
    return [(int(a), int(b), float(c)) for a, b, c in result.to_numpy()]


def test_the_four_queries_give_the_ctr_per_position_of_the_raw_logs(tiny, expected):
    found = blocks("ctr")
    assert [next(name for name in NAMES if name in code) for _, code in found] == list(NAMES)
    for language, code in found:
        rows = as_rows(run(language, code, tiny))
        assert [row[:2] for row in rows] == [row[:2] for row in expected]
        assert [row[2] for row in rows] == pytest.approx([row[2] for row in expected], rel=1e-12)


def test_the_table_shown_is_the_result(expected):
    shown = re.findall(r"^\| (\d+) \| (\d+) \| (0\.\d{4}) \|$", DOCUMENT, re.MULTILINE)
    assert [(int(a), int(b), c) for a, b, c in shown] == [(a, b, f"{c:.4f}") for a, b, c in expected]


def test_bucket_of_a_raw_id(tiny, expected):
    [(language, code)] = blocks("bucket")
    bucket = run(language, code, tiny, "bucket")
    assert f"# {bucket}\n" in code
    assert bucket in {row[0] for row in expected}


def test_both_splits(tiny):
    halves = {
        split: manifest.read(str(tiny / f"samples/split={split}"))["counts"] for split in ("test", "train")
    }
    expected = [(split, counts["impressions"], counts["clicks"]) for split, counts in halves.items()]
    assert run_sql("splits", tiny) == expected


def every_row(engine: str, folder: Path, spark: Any) -> list[dict[str, Any]]:
    """All rows and columns of a folder of samples, as one of the four reads them."""
    files = f"{folder}/*.parquet"
    if engine == "DuckDB":
        columns, rows = by_duckdb(f"from '{files}'")
        return [dict(zip(columns, row, strict=True)) for row in rows]
    if engine == "pandas":
        table: list[dict[str, Any]] = pd.read_parquet(folder).to_dict("records")
        return table
    if engine == "polars":
        return pl.read_parquet(files).to_dicts()
    return [row.asDict() for row in spark.read.parquet(str(folder)).collect()]


def plain(value: Any) -> Any:
    """Lists for arrays, None for what pandas shows a null as."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("engine", ["DuckDB", "pandas", "polars", "Spark"])
def test_every_column_can_be_read(tiny, spark, engine):
    folder = tiny / "samples/split=train"
    files = sorted(str(path) for path in folder.glob("part-*.parquet"))
    expected = pq.read_table(files, partitioning=None).to_pylist()
    found = every_row(engine, folder, spark)
    by_first_impression = {row["sample_id"][0]: row for row in found}
    assert len(found) == len(by_first_impression) == len(expected) > 0
    for row in expected:
        other = by_first_impression[row["sample_id"][0]]
        assert {name: plain(other[name]) for name in row} == row


def test_the_folders_name_becomes_a_column(tiny, spark):
    """The two expressions between back quotes, in Spark and polars."""
    code = {name: find(rf"`({name}\(.*\))`") for name in (r"spark\.read\.parquet", r"pl\.scan_parquet")}
    names = {"spark": spark, "pl": pl}
    by_spark, by_polars = (eval(text.replace(FOLDER, str(tiny)), names) for text in code.values())
    assert {row[0] for row in by_spark.select("split").distinct().collect()} == {"train", "test"}
    assert set(by_polars.select("split").collect()["split"]) == {"train", "test"}
    assert set(pd.read_parquet(tiny / "samples", columns=["split"])["split"]) == {"train", "test"}


def test_predictions_join_their_samples(tiny):
    table = pq.read_table(str(tiny / "run/predictions/part-00000.parquet"), columns=["sample_id", "p_ctr"])
    p_ctr = dict(zip(table["sample_id"].to_pylist(), table["p_ctr"].to_pylist(), strict=True))
    sums: dict[int, list[tuple[float, int]]] = {}
    for path in (tiny / "samples/split=test").glob("part-*.parquet"):
        for row in pq.read_table(str(path)).to_pylist():
            for sample_id, position, click in zip(
                row["sample_id"], row["context_301"], row["click"], strict=True
            ):
                sums.setdefault(position, []).append((p_ctr[sample_id], click))
    rows = run_sql("predictions", tiny)
    assert [row[:2] for row in rows] == [(position, len(sums[position])) for position in sorted(sums)]
    for position, count, predicted, actual in rows:
        assert predicted == pytest.approx(sum(p for p, _ in sums[position]) / count, rel=1e-6)
        assert actual == pytest.approx(sum(click for _, click in sums[position]) / count, rel=1e-12)


def test_quarantine(tiny):
    made = manifest.read(str(tiny / "samples/split=train"))
    assert run_sql("quarantine", tiny) == list(made["quarantine"].items())
    assert made["quarantine"]


def test_the_table_of_columns_is_that_of_the_samples():
    words = {"int64": "int64", "int32": "int32", "int8": "int8", "float32": "float", "string": "string"}
    section = DOCUMENT.partition("## Columns")[2].partition("\n## ")[0]
    shown: list[tuple[str, str]] = []
    for line in section.splitlines():
        if line.startswith("| `"):
            _, names, kind, *_ = line.split("|")
            shown += [(name, kind.strip()) for name in re.findall(r"`(\w+)`", names)]
    expected = [(c.name, ("list of " if c.is_list else "") + words[c.type]) for c in samples.columns(ALI_CCP)]
    assert sorted(shown) == sorted(expected)
