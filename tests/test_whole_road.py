"""From raw logs to predictions: no impression is lost or repeated, whatever the number of workers."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.building.plain_spark import plain_samples
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from jobs import build_samples
from jobs.raw_logs import files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import manifest
from schemas.quarantine import QUARANTINE_FOLDER
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import impressions_of_samples

PROJECT = Path(__file__).resolve().parents[1]
CONFIG = """
samples: {{max_broken_share: 0.05, rows_per_row_group: 8, buckets: {{{buckets}}}}}
loader: {{shuffle_window: 64}}
model: {{embedding_dim: 4, towers: [16, 8]}}
train: {{batch_size: 252, epochs: 1, seed: 3}}
"""
BUCKETS = {field.name: 997 for field in FIELDS}


def command(*arguments: str, workers: int = 1) -> str:
    """Run one of the project's commands, under horovodrun where there are several workers; its output."""
    python = [sys.executable, "-m", *arguments]
    if workers > 1:
        launcher = str(Path(sys.executable).parent / "horovodrun")
        python = [launcher, "-np", str(workers), "-H", f"localhost:{workers}", *python]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        python, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def road(spark, tmp_path_factory):
    """Raw demo logs with broken lines among them, and their samples."""
    folder = tmp_path_factory.mktemp("road")
    command("jobs.make_demo_logs", "--out", str(folder / "raw"), "--contexts", "60", "--list-scale", "0.05")
    with open(folder / "raw/sample_skeleton_train.csv", "ab") as stream:
        stream.write(
            b"900001,1,0\n900002,0,0,ffffffffffffffff,0,\n900003,x,0,ffffffffffffffff,0,\n900004,1,1,00"
        )
    buckets = ", ".join(f'"{name}": {size}' for name, size in BUCKETS.items())
    (folder / "config.yaml").write_text(CONFIG.format(buckets=buckets))
    logs = [str(folder / f"raw/{name}_train.csv") for name in ("sample_skeleton", "common_features")]
    settings = SamplesConfig(
        max_broken_share=0.05, rows_per_row_group=8, raw_bytes_per_file=10**6, buckets=BUCKETS
    )
    out = str(folder / "samples")
    build_samples.run(spark, TextLogs(files.find_logs(*logs)), ALI_CCP, settings, out, overwrite=False)
    return folder


@pytest.fixture(scope="module")
def sample_ids(road) -> Counter[int]:
    """The sample_id of every impression in the samples."""
    tables = [
        pq.read_table(str(path), columns=["sample_id"]) for path in (road / "samples").glob("part-*.parquet")
    ]
    return Counter(i for table in tables for row in table["sample_id"].to_pylist() for i in row)


def test_every_raw_line_is_in_the_samples_or_in_the_quarantine(road, sample_ids):
    lines = (road / "raw/sample_skeleton_train.csv").read_bytes().splitlines()
    quarantine = pq.read_table(
        sorted(str(p) for p in (road / "samples" / QUARANTINE_FOLDER).iterdir())
    ).to_pylist()
    expected = Counter(lines)
    for row in quarantine:
        expected.subtract([row["text"]])
    assert min(expected.values()) == 0
    assert Counter(int(line.split(b",")[0]) for line in expected.elements()) == sample_ids
    reasons = Counter(row["reason"] for row in quarantine)
    assert reasons.pop("conversion_without_click") == sum(b",0,1," in line[:20] for line in lines)
    assert reasons == {"wrong_column_count": 1, "no_common_record": 1, "bad_label": 1, "truncated_line": 1}
    assert manifest.read(str(road / "samples"))["quarantine"] == dict(
        Counter(row["reason"] for row in quarantine)
    )


def test_samples_equal_those_of_plain_spark_sql(spark, road):
    """An independent reading of the same logs: split, hash and join in Spark's own functions."""
    clean = road / "clean.csv"
    good = (road / "raw/sample_skeleton_train.csv").read_bytes().splitlines()[:-4]
    clean.write_bytes(b"\n".join(good) + b"\n")
    common = str(road / "raw/common_features_train.csv")
    plain = plain_samples(spark, str(clean), common, ALI_CCP.with_buckets(BUCKETS), 0).toArrow()
    ours = pq.read_table(sorted(str(path) for path in (road / "samples").glob("part-*.parquet")))
    expected, found = impressions_of_samples(plain), impressions_of_samples(ours)
    assert len(found) > 1000
    assert found == expected


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_impression_reaches_one_rank_once(road, sample_ids, world_size):
    seen: Counter[int] = Counter()
    for rank in range(world_size):
        loader = Loader(
            str(road / "samples"),
            batch_size=100,
            rank=rank,
            world_size=world_size,
            shuffle_window=20,
            with_keys=True,
        )
        for batch in loader.epoch(Position.start(0)):
            assert batch.keys is not None
            seen.update(batch.keys["sample_id"].to_pylist())
    assert seen == sample_ids


@pytest.fixture(scope="module")
def trained(road):
    samples, run = str(road / "samples"), road / "run"
    config = ["--config", str(road / "config.yaml")]
    command("esmm.train", *config, "--train", samples, "--valid", samples, "--run", str(run))
    return run


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_impression_is_predicted_once(road, sample_ids, trained, workers):
    out = road / f"predictions-{workers}"
    command(
        "esmm.predict",
        "--run",
        str(trained),
        "--samples",
        str(road / "samples"),
        "--out",
        str(out),
        workers=workers,
    )
    table = pq.read_table(sorted(str(path) for path in out.glob("*.parquet")))
    assert Counter(table["sample_id"].to_pylist()) == sample_ids
    lines = (road / "raw/sample_skeleton_train.csv").read_text().splitlines()
    raw = {int(line.split(",")[0]): line.split(",")[1:4] for line in lines if line.count(",") == 5}
    for row in table.to_pylist():
        assert raw[row["sample_id"]] == [str(row["click"]), str(row["conversion"]), row["context_id"]]
        assert row["p_ctcvr"] == pytest.approx(row["p_ctr"] * row["p_cvr"], rel=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_metrics(road, trained):
    """Train, predict and evaluate again with one worker: byte for byte the same metrics."""
    samples, predictions, metrics = str(road / "samples"), road / "predictions", road / "metrics.json"
    contents = []
    for _ in range(2):
        config = ["--config", str(road / "config.yaml")]
        run = str(road / "again")
        command("esmm.train", *config, "--train", samples, "--valid", samples, "--run", run, "--overwrite")
        command("esmm.predict", "--run", run, "--samples", samples, "--out", str(predictions), "--overwrite")
        truth = str(road / "raw/truth_train.csv")
        command("jobs.evaluate", "--predictions", str(predictions), "--out", str(metrics), "--truth", truth)
        contents.append(metrics.read_bytes())
    assert contents[0] == contents[1]
    assert 0.5 < json.loads(contents[0])["ctr"]["auc"]["value"] < 1
