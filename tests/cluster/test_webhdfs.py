"""`webhdfs://` on a real HDFS: whole files, whole renames, few requests, errors that say what is wrong."""

import contextlib
import io
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from requests import Response

from cli.errors import InputError, StoreError
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from schemas import predictions
from storage import outputs, publishing, staging
from storage.filesystems import filesystem
from storage.json_files import write_json
from storage.webhdfs import WebHdfs, hadoop_user
from tests.fixtures.cluster.hadoop import Hadoop
from tests.fixtures.sample_files import write_samples

pytestmark = pytest.mark.timeout(300)
CONTENT = os.urandom(1 << 20) + b"no line end \n here" * 3


@pytest.fixture(scope="module")
def fs(hadoop_cluster: Hadoop) -> WebHdfs:
    fs, _ = filesystem(f"{hadoop_cluster.url}/")
    with fs.open("/in/file", "wb") as stream:
        stream.write(CONTENT)
    return fs


@pytest.fixture
def requests_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that all file systems of this process ask for, one after the other."""
    made: list[str] = []
    send = WebHdfs.request

    def note(fs: WebHdfs, method: str, url: str, **options: Any) -> Response:
        made.append(f"{method} {options.get('params', {}).get('op', 'data')}")
        return send(fs, method, url, **options)

    monkeypatch.setattr(WebHdfs, "request", note)
    return made


def test_a_file_is_read_as_it_was_written(fs: WebHdfs):
    assert fs.size("/in/file") == len(CONTENT)
    for block_size in (1 << 16, 1 << 20, 8 << 20):
        with fs.open("/in/file", "rb", block_size=block_size) as stream, io.BytesIO(CONTENT) as expected:
            for begin in (0, 1000, len(CONTENT) - 40):
                assert (stream.seek(begin), stream.read(100)) == (expected.seek(begin), expected.read(100))
                assert stream.readline(7) == expected.readline(7)
                assert stream.readline() == expected.readline()
            assert stream.read() == expected.read()


def test_a_range_is_one_request_for_its_place_and_one_for_its_content(fs: WebHdfs, requests_made: list[str]):
    with fs.open("/in/file", "rb", cache_type="none") as stream:
        stream.seek(5000)
        assert stream.read(300_000) == CONTENT[5000:305_000]
    assert requests_made == ["GET GETFILESTATUS", "GET OPEN", "GET data"]


def test_a_file_of_any_size_is_one_upload(fs: WebHdfs, requests_made: list[str]):
    with fs.open("/out/file", "wb") as stream:
        for _ in range(20):
            stream.write(CONTENT)
    assert requests_made == ["PUT CREATE", "PUT data"]
    assert fs.size("/out/file") == 20 * len(CONTENT)


def test_a_file_that_was_given_up_is_not_sent(fs: WebHdfs):
    with contextlib.suppress(ZeroDivisionError), fs.open("/given-up/a", "wb") as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    stream = fs.open("/given-up/b", "wb")
    stream.write(b"half")
    del stream
    assert not fs.exists("/given-up")


def test_parquet_files_are_written_and_read(fs: WebHdfs):
    table = pa.table({"a": range(100_000)})
    with fs.open("/out/a.parquet", "wb") as stream:
        pq.write_table(table, stream)
    with fs.open("/out/a.parquet", "rb") as stream:
        assert pq.read_table(stream).equals(table)


def test_renaming_is_what_it_is_locally(fs: WebHdfs):
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


def test_what_may_be_replaced_is_what_it_is_locally(fs: WebHdfs, hadoop_cluster: Hadoop):
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
    fs: WebHdfs, hadoop_cluster: Hadoop, monkeypatch: pytest.MonkeyPatch
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


def test_errors_name_the_place_and_what_to_do(fs: WebHdfs, hadoop_cluster: Hadoop):
    with pytest.raises(FileNotFoundError, match="File does not exist: /none") as error:
        fs.open("/none", "rb")
    assert error.value.filename == f"{hadoop_cluster.url}/none"
    with pytest.raises(StoreError, match="webhdfs://127.0.0.1:1/a: expected a namenode .* found none"):
        publishing.require_published("webhdfs://127.0.0.1:1/a", "samples", "x")
    with pytest.raises(InputError, match="expected webhdfs://NAMENODE:PORT/path"):
        filesystem("webhdfs://namenode/a")
    with pytest.raises(InputError, match="Give webhdfs://namenode:9870/a/b "):
        filesystem("hdfs://namenode:8020/a/b")


def test_the_user_is_hadoop_s(fs: WebHdfs, hadoop_cluster: Hadoop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK_USER", "sparks")
    assert hadoop_user() == "sparks"
    monkeypatch.setenv("HADOOP_USER_NAME", "hadoops")
    assert hadoop_user() == "hadoops"
    write_json(f"{hadoop_cluster.url}/owned/x.json", {"a": 1})
    assert fs.info("/owned/x.json")["owner"] == "hadoops"


def test_the_loader_reads_each_row_group_by_a_few_requests(
    fs: WebHdfs, hadoop_cluster: Hadoop, requests_made: list[str], tmp_path: Path
):
    files = write_samples(tmp_path / "samples", num_rows=400, rows_per_row_group=50)["files"]
    for path in (tmp_path / "samples").iterdir():
        fs.put_file(str(path), f"/samples/{path.name}")
    groups = sum(len(entry["rows"]) for entry in files)
    out = f"{hadoop_cluster.url}/samples"
    loader, start = Loader(out, batch_size=64, shuffle_window=16), Position.start(0)
    requests_made.clear()
    assert sum(batch.num_impressions for batch in loader.epoch(start)) == sum(
        loader.plan(start).num_impressions
    )
    # Not one for each of the forty columns of a row group; a footer is at most two.
    assert groups <= requests_made.count("GET data") <= groups + 2 * len(files)
    assert requests_made.count("GET GETFILESTATUS") == groups
