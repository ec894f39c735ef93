"""The shop's logs: what stands in the tables, and that the truth beside them is the labels' own."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs import make_demo_logs
from jobs.demo_logs.options import ShopOptions
from jobs.make_demo_logs import format_for, make_shop
from jobs.raw_tables.columns import taken_of_contexts, taken_of_impressions
from jobs.shop_logs import draw
from schemas import schema_file

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = "configs/schemas/shop.yaml"
OPTIONS = ShopOptions(contexts=1500, seed=3, ctr=0.05, cvr=0.18)
SPLITS = ("train", "test")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "raw"
    make_shop(str(folder), OPTIONS, overwrite=False)
    return folder


def impressions(logs: Path, split: str) -> pd.DataFrame:
    return pd.read_parquet(logs / f"impressions_{split}")


def contexts(logs: Path, split: str) -> pd.DataFrame:
    return pd.read_parquet(logs / f"contexts_{split}")


def good(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.session_id.notna() & ~(rows.bought & ~rows.clicked)]


def with_truth(logs: Path, split: str) -> pd.DataFrame:
    """Impressions that are no dirt, with the probabilities of their labels; every truth line has its own."""
    truth = pd.read_csv(logs / f"truth_{split}.csv")
    assert list(truth.columns) == ["sample_id", "p_ctr", "p_cvr"]
    joined = good(impressions(logs, split)).merge(
        truth, left_on="impression_id", right_on="sample_id", how="outer", indicator=True, validate="1:1"
    )
    assert (joined["_merge"] == "both").all()
    return joined


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_equal_options_give_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        make_shop(str(tmp_path / name), ShopOptions(contexts=40, seed=seed), overwrite=False)
    first, second, other = (digests(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert len(first) == 8
    tables = [name for name in first if name.endswith(".parquet")]
    assert all(first[name] != other[name] for name in tables)


def test_halves_are_cut_into_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (draw, make_demo_logs.shop_files):
        monkeypatch.setattr(module, "CHUNK", 30)
    summary = make_shop(str(tmp_path / "raw"), ShopOptions(contexts=70), overwrite=False)
    names = sorted(path.name for path in (tmp_path / "raw/impressions_train").iterdir())
    assert names == [f"part-0000{number}.parquet" for number in range(3)]
    sessions = contexts(tmp_path / "raw", "train").session_id
    assert list(sessions) == [f"s{number:08d}" for number in range(70)]
    rows = impressions(tmp_path / "raw", "train")
    assert summary["splits"]["train"]["rows"] == len(rows) == rows.impression_id.nunique()


def test_keys_are_unique_over_both_halves(logs: Path) -> None:
    rows = pd.concat([impressions(logs, split) for split in SPLITS])
    assert rows.impression_id.is_unique
    sessions = pd.concat([contexts(logs, split) for split in SPLITS]).session_id
    assert sessions.is_unique
    for split in SPLITS:
        assert set(impressions(logs, split).session_id.dropna()) <= set(contexts(logs, split).session_id)


def test_labels_are_consistent_but_for_the_dirt(logs: Path) -> None:
    counts = json.loads((logs / "demo_logs.json").read_text())["splits"]
    for split in SPLITS:
        rows = impressions(logs, split)
        found = counts[split]
        assert found["dirt_conversion_without_click"] == (rows.bought & ~rows.clicked).sum() > 0
        assert found["dirt_without_context"] == rows.session_id.isna().sum() > 0
        clean = good(rows)
        assert (found["rows"], found["valid_rows"]) == (len(rows), len(clean))
        assert (found["clicks"], found["conversions"]) == (clean.clicked.sum(), clean.bought.sum())
        assert found["contexts"] == len(contexts(logs, split))


def test_rates_are_those_that_were_asked_for(logs: Path) -> None:
    rows = good(impressions(logs, "train"))
    assert len(rows) / OPTIONS.contexts == pytest.approx(58, rel=0.1)
    assert rows.clicked.mean() == pytest.approx(OPTIONS.ctr, rel=0.07)
    assert rows.bought.sum() / rows.clicked.sum() == pytest.approx(OPTIONS.cvr, rel=0.1)


@pytest.mark.parametrize("split", SPLITS)
def test_the_truth_is_calibrated(logs: Path, split: str) -> None:
    """In every tenth of the impressions, by their probability, as many positives as it says."""
    rows = with_truth(logs, split)
    clicked = rows[rows.clicked]
    for part, label, p in ((rows, "clicked", "p_ctr"), (clicked, "bought", "p_cvr")):
        tenth = pd.qcut(part[p], 10, labels=False)
        found, expected = part[label].groupby(tenth).sum(), part[p].groupby(tenth).sum()
        deviation = (part[p] * (1 - part[p])).groupby(tenth).sum() ** 0.5
        assert (np.abs(found - expected) < 4 * deviation).all()
    spread = rows.clicked.groupby(pd.qcut(rows.p_ctr, 10, labels=False)).mean()
    assert spread.iloc[-1] > 5 * spread.iloc[0]


def test_few_products_are_shown_often(logs: Path) -> None:
    counts = impressions(logs, "train").product_id.value_counts()
    assert counts.iloc[: len(counts) // 10].sum() > 0.3 * counts.sum()


def test_the_cross_field_is_what_the_history_says(logs: Path) -> None:
    history = {
        row.session_id: {pair["category"]: pair["weight"] for pair in row.seen_categories}
        for row in contexts(logs, "train").itertuples()
    }
    rows = good(impressions(logs, "train"))
    for row in rows.head(2000).itertuples():
        weight = history[row.session_id].get(row.product_category)
        if weight is None:
            assert row.known_category is None and np.isnan(row.category_visits)
        else:
            assert (row.known_category, row.category_visits) == (row.product_category, weight)
    assert rows.known_category.notna().mean() > 0.1


def test_numbers_are_of_the_product_and_of_the_session(logs: Path) -> None:
    rows = with_truth(logs, "train")
    assert (rows.groupby("product_id").price.nunique() == 1).all()
    assert (rows.price > 0).all()
    spread = np.log(rows.price) - np.log(rows.price).groupby(rows.product_category).transform("mean")
    cheap, dear = rows[spread < -0.5], rows[spread > 0.5]
    assert cheap.p_cvr.mean() > 1.2 * dear.p_cvr.mean()
    sessions = contexts(logs, "train")
    assert sessions.days_since_order.isna().mean() == pytest.approx(0.3, abs=0.05)
    joined = rows.merge(sessions[["session_id", "days_since_order"]], on="session_id")
    lately, long_ago = joined[joined.days_since_order < 5], joined[joined.days_since_order > 60]
    assert lately.p_cvr.mean() > 1.2 * long_ago.p_cvr.mean()


def test_the_schema_fits_the_tables(logs: Path, spark) -> None:
    schema = schema_file.read(str(PROJECT / SCHEMA))
    for taken, table, fields in (
        (taken_of_contexts, "contexts", (*schema.user_fields, *schema.user_numbers)),
        (taken_of_impressions, "impressions", (*schema.impression_fields, *schema.impression_numbers)),
    ):
        frame = spark.read.parquet(str(logs / f"{table}_train"))
        sources = {column.source for column in taken(frame, schema, table)}
        assert {field.source or field.name for field in fields} <= sources
        assert {name.partition(",")[0] for name in sources} == set(frame.columns)


def test_the_schema_has_twice_as_many_buckets_as_the_default_shop_has_ids(tmp_path: Path) -> None:
    make_shop(str(tmp_path / "raw"), make_demo_logs.OF_SHOP, overwrite=False)
    sizes = schema_file.read(str(PROJECT / SCHEMA)).buckets
    for split in SPLITS:
        for path in (tmp_path / "raw").glob(f"*_{split}/*.parquet"):
            assert pq.ParquetFile(path).metadata.num_rows > 0
    rows, sessions = impressions(tmp_path / "raw", "train"), contexts(tmp_path / "raw", "train")
    ids = {
        "customer": sessions.customer_id,
        "product": rows.product_id,
        "category": rows.product_category,
        "brand": rows.product_brand,
        "tags": rows.tags.explode(),
    }
    assert {name for name, column in ids.items() if 2 * column.nunique() > sizes[name]} == set()


def test_a_demo_of_one_kind_replaces_the_other(tmp_path: Path) -> None:
    out = str(tmp_path / "raw")
    make_demo_logs.make_logs(out, make_demo_logs.Options(contexts=4), 1, overwrite=False)
    make_shop(out, ShopOptions(contexts=4), overwrite=True)
    assert (tmp_path / "raw/impressions_train").is_dir()
    assert not (tmp_path / "raw/sample_skeleton_train.csv").exists()
    make_demo_logs.make_logs(out, make_demo_logs.Options(contexts=4), 1, overwrite=True)
    assert not (tmp_path / "raw/impressions_train").exists()


def test_a_table_with_something_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    make_shop(str(tmp_path / "raw"), ShopOptions(contexts=4), overwrite=False)
    (tmp_path / "raw/impressions_train/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="notes.txt"):
        make_shop(str(tmp_path / "raw"), ShopOptions(contexts=4), overwrite=True)


def test_only_the_two_worlds_are_drawn() -> None:
    assert format_for("ali_ccp", None) == "text"
    assert format_for("shop", "parquet") == format_for("shop", None) == "parquet"
    with pytest.raises(InputError, match=r"two worlds that it knows, ali_ccp and shop, found .* named tiny"):
        format_for("tiny", None)
    with pytest.raises(InputError, match="expected parquet for schema shop, found text"):
        format_for("shop", "text")


def test_the_command_takes_the_shops_rates_where_none_are_given(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.make_demo_logs", "--schema", SCHEMA, "--contexts", "30"]
    arguments = ["--out", str(tmp_path / "raw"), "--cvr", "0.3"]
    done = subprocess.run([*command, *arguments], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "train: " in done.stdout and " contexts, " in done.stdout
    options = json.loads((tmp_path / "raw/demo_logs.json").read_text())["options"]
    assert options == {
            "contexts": 30, "seed": 1, "ctr": 0.05, "cvr": 0.3, "list_scale": 1.0, "actions": False
        }  # fmt: skip


def test_actions_are_columns_beside_the_same_impressions(logs: Path, tmp_path: Path) -> None:
    make_shop(str(tmp_path / "raw"), replace(OPTIONS, actions=True), overwrite=False)
    for split in SPLITS:
        rows, plain = impressions(tmp_path / "raw", split), impressions(logs, split)
        pd.testing.assert_frame_equal(rows.drop(columns=["carted", "wished"]), plain)
        assert not ((rows.carted | rows.wished) & ~rows.clicked).any()
    rows = good(rows)
    bought, others = rows[rows.clicked & rows.bought], rows[rows.clicked & ~rows.bought]
    assert bought.carted.mean() == pytest.approx(draw.OF_BUYERS["carted"], abs=0.05)
    assert others.carted.mean() < 0.6 * bought.carted.mean()
    # What else has an action is likelier to convert, so that actions tell of pCVR.
    judged = with_truth(tmp_path / "raw", "test")
    clicked = judged[judged.clicked & ~judged.bought]
    assert clicked[clicked.carted].p_cvr.mean() > 1.1 * clicked[~clicked.carted].p_cvr.mean()


def test_the_text_of_ali_ccp_has_no_place_for_actions() -> None:
    args = make_demo_logs.parse_arguments(["--out", "x", "--actions"])
    with pytest.raises(InputError, match="--actions: the text of Ali-CCP has no place for them"):
        make_demo_logs.read_options(args)
