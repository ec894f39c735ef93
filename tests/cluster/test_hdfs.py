"""`hdfs://` on a real HDFS: whole files, whole renames, few requests, errors that say what is wrong."""

import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError, StoreError
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from schemas import predictions
from storage import hdfs, outputs, publishing, staging
from storage.filesystems import filesystem
from storage.hdfs import Hdfs, hadoop_user
from storage.json_files import write_json
from tests.fixtures.cluster.hadoop import Hadoop
from tests.fixtures.sample_files import write_samples

pytestmark = pytest.mark.timeout(300)
CONTENT = os.urandom(1 << 20) + b"no line end \n here" * 3


@pytest.fixture(scope="module")
def fs(hadoop_cluster: Hadoop) -> Hdfs:
    fs, _ = filesystem(f"{hadoop_cluster.url}/")
    with fs.open("/in/file", "wb") as stream:
        stream.write(CONTENT)
    return fs


def test_a_file_is_read_as_it_was_written(fs: Hdfs):
    assert fs.size("/in/file") == len(CONTENT)
    for block_size in (1 << 16, 1 << 20, 8 << 20):
        with fs.open("/in/file", "rb", block_size=block_size) as stream, io.BytesIO(CONTENT) as expected:
            for begin in (0, 1000, len(CONTENT) - 40):
                assert (stream.seek(begin), stream.read(100)) == (expected.seek(begin), expected.read(100))
                assert stream.readline(7) == expected.readline(7)
                assert stream.readline() == expected.readline()
            assert stream.read() == expected.read()


def test_a_file_that_was_given_up_is_not_sent(fs: Hdfs):
    with contextlib.suppress(ZeroDivisionError), fs.open("/given-up/a", "wb") as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    stream = fs.open("/given-up/b", "wb")
    stream.write(b"half")
    del stream
    assert not fs.find("/given-up")


def test_parquet_files_are_written_and_read(fs: Hdfs):
    table = pa.table({"a": range(100_000)})
    with fs.open("/out/a.parquet", "wb") as stream:
        pq.write_table(table, stream)
    with fs.open("/out/a.parquet", "rb") as stream:
        assert pq.read_table(stream).equals(table)


def test_renaming_is_what_it_is_locally(fs: Hdfs):
    for name in ("one", "two"):
        fs.makedirs(f"/rename/{name}", exist_ok=True)
        fs.touch(f"/rename/{name}/{name}")
    fs.makedirs("/rename/empty", exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.mv("/rename/one", "/rename/two")
    with pytest.raises(FileExistsError):
        fs.mv("/rename/one", "/rename/two/two")
    with pytest.raises(FileNotFoundError):
        fs.mv("/rename/none", "/rename/three")
    fs.mv("/rename/one", "/rename/empty")
    fs.mv("/rename/two/two", "/rename/empty/one")
    assert sorted(fs.find("/rename")) == ["/rename/empty/one"]


def test_what_may_be_replaced_is_what_it_is_locally(fs: Hdfs, hadoop_cluster: Hadoop):
    out = f"{hadoop_cluster.url}/replaced"
    outputs.refuse_taken(out, predictions.OUTPUT, overwrite=True)
    write_json(f"{out}/_manifest.json", {"rows": 1, "run": "runs/a", "step": 1})
    outputs.refuse_taken(out, predictions.OUTPUT, overwrite=True)
    fs.touch("/replaced/.thesis")
    with pytest.raises(InputError, match=r"found a folder with \.thesis in it"):
        outputs.refuse_taken(out, predictions.OUTPUT, overwrite=True)
    with pytest.raises(InputError, match="found a file"):
        outputs.refuse_taken(f"{out}/.thesis", predictions.OUTPUT, overwrite=True)


def test_leftovers_of_killed_jobs_are_swept_when_nothing_in_them_changes(
    fs: Hdfs, hadoop_cluster: Hadoop, monkeypatch: pytest.MonkeyPatch
):
    out = f"{hadoop_cluster.url}/swept/out"
    for folder in (
        out,
        publishing.staging_name(out),
        f"{hadoop_cluster.url}/swept/.other.staging-0123456789ab",
    ):
        write_json(f"{folder}/attempts/x.json", {})
    staging.sweep(out)
    assert len(fs.ls("/swept")) == 3
    with staging.beside(out) as living:
        monkeypatch.setattr(staging, "SECONDS_ON_HDFS", 2)
        time.sleep(2.1)
        write_json(f"{living}/attempts/x.json", {})
        staging.sweep(out)
        assert sorted(fs.ls("/swept", detail=False)) == sorted(
            ["/swept/.other.staging-0123456789ab", "/swept/out", filesystem(living)[1]]
        )


def test_errors_name_the_place_and_what_to_do(fs: Hdfs, hadoop_cluster: Hadoop):
    with pytest.raises(FileNotFoundError, match="File does not exist: /none") as error:
        fs.open("/none", "rb")
    assert error.value.filename == f"{hadoop_cluster.url}/none"
    with pytest.raises(StoreError, match="hdfs://127.0.0.1:1/a: expected a namenode .* found none"):
        publishing.require_published("hdfs://127.0.0.1:1/a", "samples", "x")
    with pytest.raises(InputError, match="expected hdfs://NAMENODE:PORT/path"):
        filesystem("hdfs://namenode:x/a")
    with pytest.raises(InputError, match="Give hdfs://namenode:8020/a/b "):
        filesystem("webhdfs://namenode:9870/a/b")


def test_the_user_is_hadoop_s(fs: Hdfs, hadoop_cluster: Hadoop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK_USER", "sparks")
    assert hadoop_user() == "sparks"
    monkeypatch.setenv("HADOOP_USER_NAME", "hadoops")
    assert hadoop_user() == "hadoops"
    write_json(f"{hadoop_cluster.url}/owned/x.json", {"a": 1})
    assert fs.info("/owned/x.json")["owner"] == "hadoops"


def test_the_loader_reads_samples(fs: Hdfs, hadoop_cluster: Hadoop, tmp_path: Path):
    write_samples(tmp_path / "samples", num_rows=400, rows_per_row_group=50)
    for path in (tmp_path / "samples").iterdir():
        fs.put_file(str(path), f"/samples/{path.name}")
    start = Position.start(0)
    loader = Loader(f"{hadoop_cluster.url}/samples", batch_size=64, shuffle_window=16)
    assert sum(batch.num_impressions for batch in loader.epoch(start)) == sum(
        loader.plan(start).num_impressions
    )


def test_a_block_that_was_damaged_is_an_error_and_no_content(fs: Hdfs, hadoop_cluster: Hadoop, monkeypatch):
    monkeypatch.setattr(hdfs, "SECONDS_TO_READ_AGAIN", (0.01, 0.01))
    with fs.open("/damaged", "wb") as stream:
        stream.write(b"d" * 300_000)
    stored = hadoop_cluster.conf.parent / "data/dfs/data"
    [block] = [path for path in stored.rglob("blk_*") if path.stat().st_size == 300_000]
    with block.open("r+b") as stream:
        stream.seek(100_000)
        stream.write(b"X")
    with fs.open("/damaged", "rb") as stream, pytest.raises(OSError, match="Errno 5.*hdfs://.*/damaged"):
        stream.read()


def test_lines_are_read_as_of_any_file(fs: Hdfs):
    with fs.open("/lines.csv", "w") as stream:
        stream.write("a,b\n1,2\n")
    with fs.open("/lines.csv", "r") as stream:
        assert stream.readline(200) == "a,b\n" and list(stream) == ["1,2\n"]
    with fs.open("/lines.csv", "rb") as stream:
        assert list(stream) == [b"a,b\n", b"1,2\n"]


def test_a_path_is_what_it_says(fs: Hdfs, hadoop_cluster: Hadoop):
    write_json(f"{hadoop_cluster.url}/odd/a b%20=#1?ü.json", {"a": 1})
    assert fs.ls("/odd", detail=False) == ["/odd/a b%20=#1?ü.json"]


def test_a_process_that_has_used_hdfs_can_start_another_by_a_fork(hadoop_cluster: Hadoop):
    """As Spark's launcher does, after which fsspec frees its file systems in the new process."""
    program = (
        "import subprocess, sys; from storage.filesystems import filesystem; "
        "fs, path = filesystem(sys.argv[1]); fs.exists(path); del fs; "
        "subprocess.run(['true'], preexec_fn=lambda: None, check=True)"
    )
    subprocess.run([sys.executable, "-c", program, hadoop_cluster.url], timeout=60, check=True)
