"""From raw logs to predictions on s3://, against a server of the S3 protocol on this machine."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from cli.errors import InputError
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.source import read_range, split_ranges
from schemas import manifest
from storage import publishing
from storage.filesystems import filesystem
from storage.json_files import read_json, write_json
from tests.fixtures.ali_ccp import FIELDS
from tests.fixtures.raw_lines import random_logs, write_logs

PROJECT = Path(__file__).resolve().parents[1]
ROOT = "s3://esmm-tests"
CONFIG = f"""
samples: {{max_broken_share: 0.05, rows_per_row_group: 8, raw_bytes_per_file: 400000,
  buckets: {{{", ".join(f'"{field.name}": 97' for field in FIELDS)}}}}}
loader: {{shuffle_window: 64}}
model: {{embedding_dim: 4, towers: [8]}}
train: {{batch_size: 252, epochs: 1, seed: 3}}
"""


@pytest.fixture(scope="module")
def store() -> Iterator[None]:
    """A bucket. Commands started here know its server through the environment, as those of a user do."""
    import s3fs

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        fs, bucket = filesystem(ROOT)
        fs.mkdir(bucket, region_name="eu-west-1")
        yield
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, "-m", *arguments]
    return subprocess.run(
        python, cwd=PROJECT, env=os.environ, capture_output=True, text=True, timeout=280, check=False
    )


def run(*arguments: str) -> str:
    done = command(*arguments)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def names(url: str) -> list[str]:
    fs, path = filesystem(url)
    return [name.removeprefix(f"{path}/") for name in fs.find(path)]


@pytest.fixture(scope="module")
def road(store: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo logs and their samples in the bucket; a folder with the configuration."""
    folder = tmp_path_factory.mktemp("road")
    (folder / "config.yaml").write_text(CONFIG)
    run("jobs.make_demo_logs", "--out", f"{ROOT}/raw", "--contexts", "60", "--list-scale", "0.05")
    logs = [
        "--skeleton",
        f"{ROOT}/raw/sample_skeleton_train*",
        "--common",
        f"{ROOT}/raw/common_features_train*",
    ]
    run("jobs.build_samples", *logs, "--out", f"{ROOT}/samples", "--config", str(folder / "config.yaml"))
    return folder


def test_all_impressions_of_the_logs_are_in_the_samples_and_reach_the_loader(road: Path):
    made = manifest.read(f"{ROOT}/samples")
    assert names(f"{ROOT}/raw")[0] == "_SUCCESS"
    assert len(made["files"]) > 1
    fs, path = filesystem(f"{ROOT}/raw/sample_skeleton_train.csv")
    expected = Counter(int(line.split(b",")[0]) for line in fs.cat_file(path).splitlines())
    assert made["counts"]["impressions"] + sum(made["quarantine"].values()) == sum(expected.values())
    seen: Counter[int] = Counter()
    for batch in Loader(f"{ROOT}/samples", batch_size=100, shuffle_window=20, with_keys=True).epoch(
        Position.start(0)
    ):
        assert batch.keys is not None
        seen.update(batch.keys["sample_id"].to_pylist())
    assert not seen - expected
    assert sum(seen.values()) == made["counts"]["impressions"]


@pytest.mark.slow
def test_predictions_are_written_and_what_spark_reads_itself_is_refused_by_name(road: Path):
    config = ["--config", str(road / "config.yaml")]
    run(
        "esmm.train",
        *config,
        "--train",
        f"{ROOT}/samples",
        "--valid",
        f"{ROOT}/samples",
        "--run",
        str(road / "run"),
    )
    predictions = f"{ROOT}/run/predictions"
    predict = [
        "esmm.predict",
        "--run",
        str(road / "run"),
        "--samples",
        f"{ROOT}/samples",
        "--out",
        predictions,
    ]
    run(*predict)
    assert names(predictions) == ["_SUCCESS", "_manifest.json", "part-00000.parquet"]
    fs, path = filesystem(predictions)
    with fs.open(f"{path}/part-00000.parquet", "rb") as stream:
        rows = pq.read_table(stream).num_rows
    assert rows == manifest.read(f"{ROOT}/samples")["counts"]["impressions"]
    assert names(f"{ROOT}/run") == [f"predictions/{name}" for name in names(predictions)]
    evaluate = ["jobs.evaluate", "--predictions", predictions, "--out", f"{ROOT}/run/metrics.json"]
    run(*evaluate)
    assert read_json(f"{ROOT}/run/metrics.json")["ctr"]["rows"] == rows
    assert names(f"{ROOT}/run/metrics.users")[:2] == ["_SUCCESS", "_manifest.json"]
    done = command(*evaluate, "--truth", f"{ROOT}/raw/truth_train.csv")
    assert done.returncode == 2
    assert "error: s3://: this job reads through Spark's own readers" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_profile_is_read_and_written_by_our_own_code(road: Path):
    profile = f"{ROOT}/profiles/train.json"
    run("jobs.profile_samples", "--samples", f"{ROOT}/samples", "--out", profile)
    assert read_json(profile)["duplicate_sample_ids"] == 0


def test_a_copy_that_fails_keeps_what_was_staged(store: None, monkeypatch: pytest.MonkeyPatch):
    out = f"{ROOT}/failing"
    staging = publishing.staging_name(out)
    fs, path = filesystem(staging)
    fs.pipe_file(f"{path}/part-0.parquet", b"content")
    write_json(f"{staging}/_manifest.json", {})
    copy = type(fs)._cp_file

    async def cp_file(self: object, source: str, target: str, **options: object) -> None:
        if target.endswith("_manifest.json"):
            raise PermissionError(13, "Access Denied", target)
        await copy(self, source, target, **options)

    monkeypatch.setattr(type(fs), "_cp_file", cp_file)
    with pytest.raises(InputError, match=f"Access Denied.* It is kept whole in {staging}"):
        publishing.publish(staging, out, overwrite=False)
    publishing.discard(staging)
    assert names(staging) == ["_SUCCESS", "_manifest.json", "part-0.parquet"]
    assert names(out) == ["part-0.parquet"]
    monkeypatch.undo()
    publishing.publish(staging, out, overwrite=True)
    assert names(out) == ["_SUCCESS", "_manifest.json", "part-0.parquet"]
    assert names(staging) == []


def test_an_object_replaced_by_one_of_the_same_size_is_refused(store: None, tmp_path: Path):
    for path in write_logs(tmp_path, random_logs(seed=11, num_contexts=20)):
        fs, target = filesystem(f"{ROOT}/changed/{Path(path).name}")
        fs.put_file(path, target)
    files = raw_files.find_logs(f"{ROOT}/changed", f"{ROOT}/changed")
    assert sum(len(chunk.lines) for task in split_ranges(files, 5000) for chunk in read_range(task)) == sum(
        file.size for file in files
    )
    skeleton = files[-1]
    fs, target = filesystem(skeleton.path)
    fs.pipe_file(target, fs.cat_file(target).replace(b",0,0,", b",1,0,"))
    with pytest.raises(InputError, match=f"{skeleton.path}: it was replaced .* {skeleton.size} bytes"):
        list(read_range(split_ranges([skeleton], 5000)[0]))


@pytest.mark.parametrize(
    ("keys", "found"),
    [({}, "Unable to locate credentials"), ({"KEY_ID": "a", "KEY": "b"}, "connect to the endpoint")],
)
def test_a_store_that_cannot_be_reached_is_one_message(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], found: str
):
    for name, key in (("AWS_ACCESS_KEY_ID", "KEY_ID"), ("AWS_SECRET_ACCESS_KEY", "KEY")):
        monkeypatch.setenv(name, keys[key]) if keys else monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # else it asks the cloud's machines for keys
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = command(
        "jobs.build_samples", "--skeleton", f"{ROOT}/a.csv", "--common", f"{ROOT}/b.csv", "--out", ROOT
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"error: s3://: {found}" in done.stderr or f"error: s3://: Could not {found}" in done.stderr
