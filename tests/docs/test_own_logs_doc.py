"""docs/own_logs.md: its commands and queries, run out of the page itself, go from two tables to the AUCs."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs.raw_tables.columns import taken_of_impressions
from schemas import manifest, schema_file
from schemas.raw_log import QUARANTINE_REASONS
from tests.docs.test_samples_doc import by_duckdb

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/own_logs.md").read_text()
FOLDER = "build/own"  # as the page writes it
SCHEMA = schema_file.read(str(PROJECT / "configs/schemas/shop.yaml"))
BLOCK = re.compile(r"^```(sh|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Answers = dict[str, tuple[list[str], list[tuple]]]


def run_command(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=PROJECT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answers]:
    """The folder after all commands of the page, in their order; by first word: what the queries gave."""
    folder = tmp_path_factory.mktemp("own")
    answers: Answers = {}
    for language, code in BLOCK.findall(PAGE):
        code = code.replace(FOLDER, str(folder))
        if language == "sql":
            answers[code.removeprefix("select ").split()[0] + str(len(answers))] = ask(code)
            continue
        for command in code.splitlines():
            run_command(command)
    return folder, answers


def ask(code: str) -> tuple[list[str], list[tuple]]:
    """Columns and rows of a query; none of one that writes a file."""
    if not code.startswith("copy"):
        return by_duckdb(code)
    script = "import duckdb, sys; duckdb.connect().sql(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, code], check=True)
    return [], []


slow = pytest.mark.slow
patient = pytest.mark.timeout(900)  # ten commands, six of which start Spark


@slow
@patient
def test_the_ten_steps_end_with_three_aucs(road: tuple[Path, Answers]) -> None:
    folder, _ = road
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert all(0 < metrics[task]["auc"]["value"] < 1 for task in ("ctr", "cvr", "ctcvr"))
    assert (
        metrics["ctr"]["rows"] == manifest.read(str(folder / "samples/split=test"))["counts"]["impressions"]
    )


@slow
@patient
def test_the_queries_describe_the_tables_the_schema_names(road: tuple[Path, Answers]) -> None:
    _, answers = road
    described = [answer for name, answer in answers.items() if name.startswith("describe")]
    names = {row[0] for _, rows in described for row in rows}
    assert {field.source or field.name for field in SCHEMA.fields} <= names


@slow
@patient
def test_the_proposed_schema_has_the_columns_of_the_shops_own(road: tuple[Path, Answers]) -> None:
    folder, _ = road
    found = schema_file.read(str(folder / "proposed.yaml"))
    assert found.tables == SCHEMA.tables
    sources = [{field.source or field.name for field in schema.fields} for schema in (found, SCHEMA)]
    assert sources[0] == sources[1]


@slow
@patient
def test_the_quarantine_is_that_of_the_manifest(road: tuple[Path, Answers]) -> None:
    folder, answers = road
    [(_, rows)] = [answer for name, answer in answers.items() if name.startswith("reason")]
    made = manifest.read(str(folder / "samples/split=train"))["quarantine"]
    assert {reason: num for reason, num, _ in rows} == made
    assert set(made) == {"conversion_without_click", "null_key"}
    examples = {reason: json.loads(text) for reason, _, text in rows}
    assert examples["null_key"]["session_id"] is None
    assert (
        examples["conversion_without_click"]["clicked"],
        examples["conversion_without_click"]["bought"],
    ) == (0, 1)


@slow
@patient
def test_predictions_join_the_tables(road: tuple[Path, Answers]) -> None:
    folder, answers = road
    [(columns, rows)] = [answer for name, answer in answers.items() if name.startswith("product_category")]
    assert columns == ["product_category", "impressions", "predicted", "clicked"]
    predictions = pq.read_table(str(folder / "run/predictions"), partitioning=None).to_pandas()
    assert sum(row[1] for row in rows) == len(predictions)
    table = pd.read_parquet(folder / "raw/impressions_test").set_index("impression_id")
    assert (table.clicked[predictions.sample_id].to_numpy() == predictions.click.to_numpy()).all()


@slow
@patient
def test_the_flat_table_gives_the_same_impressions(road: tuple[Path, Answers]) -> None:
    folder, _ = road
    flat, two = (read_samples(folder / name) for name in ("samples_of_flat", "samples/split=train"))
    assert flat == two


def read_samples(folder: Path) -> dict[str, list]:
    """By context: its impressions' ids and products, and the customer."""
    tables = [pq.read_table(str(path), partitioning=None) for path in sorted(folder.glob("part-*.parquet"))]
    found: dict[str, list] = {}
    for row in (row for table in tables for row in table.to_pylist()):
        products = zip(row["sample_id"], row["item_product"], strict=True)
        found.setdefault(row["context_id"], []).extend([row["user_id"], *sorted(products)])
    return found


def test_the_message_shown_is_the_real_one(spark) -> None:
    [shown] = re.findall(r"^error: (.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    changes = {"category": {"source": "product_catgory"}, "tags": {"multi": False}}
    fields = tuple(replace(field, **changes.get(field.name, {})) for field in SCHEMA.fields)
    columns = (
        "impression_id string, session_id string, clicked boolean, bought boolean, product_id string, "
        "product_category string, product_brand string, tags array<string>, known_category string, "
        "category_visits float, position int, price double"
    )
    with pytest.raises(InputError) as error:
        taken_of_impressions(
            spark.createDataFrame([], columns),
            replace(SCHEMA, fields=fields),
            f"{FOLDER}/raw/impressions_train",
        )
    assert str(error.value) == shown.strip()


def test_the_reasons_named_are_reasons() -> None:
    section = PAGE.partition("## 6.")[2].partition("## 7.")[0]
    named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert len(named) > 5 and set(named) <= set(QUARANTINE_REASONS)


def test_every_command_stands_in_a_block_that_is_run() -> None:
    outside = BLOCK.sub("", PAGE)
    assert "python -m" not in outside
    assert len(re.findall(r"^## \d+\. ", PAGE, re.MULTILINE)) == 10
