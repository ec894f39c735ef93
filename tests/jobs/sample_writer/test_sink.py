"""A task of the sink that fails: its error arrives, and what it has opened is closed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs.raw_logs.chunks import read_chunks
from jobs.raw_logs.files import LogFile, files_to_json, find_logs, open_log
from jobs.raw_logs.source import Parser
from jobs.sample_writer import quarantine_file
from jobs.sample_writer.sink import ATTEMPTS, SampleWriter
from schemas.quarantine import QUARANTINE_FOLDER
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import random_logs, write_logs

BUCKETS = {field.name: 1000 for field in FIELDS}
SCHEMA = ALI_CCP.with_buckets(BUCKETS)


@pytest.fixture
def logs(tmp_path: Path) -> list[LogFile]:
    """Logs with one broken line."""
    drawn = random_logs(seed=5, num_contexts=50)
    drawn.skeleton.append("broken")
    return find_logs(*write_logs(tmp_path, drawn))


@pytest.fixture
def writer(logs: list[LogFile], tmp_path: Path) -> SampleWriter:
    (tmp_path / "staged" / ATTEMPTS).mkdir(parents=True)
    return SampleWriter(
        {
            "staging": json.dumps([str(tmp_path / "staged")]),
            "files": files_to_json(logs),
            "hash_seed": "0",
            "schema": json.dumps(SCHEMA.to_dict()),
            "id_table": "null",
            "impressions_per_row": "4",
            "rows_per_row_group": "3",
            "cut_share": "0",
        }
    )


def sorted_rows(logs: list[LogFile]) -> pa.Table:
    """The packed rows as the shuffle brings them."""
    batches = []
    for file in logs:
        with open_log(file) as stream:
            for chunk in read_chunks(stream, 0, file.size):
                batches += list(Parser(file, SCHEMA, 0).rows(chunk))
    table = pa.Table.from_batches(batches)
    table = table.append_column("part", pa.array(np.zeros(table.num_rows, np.int8)))
    return table.sort_by([(name, "ascending") for name in ("part", "key", "kind", "order")])


def failing(table: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from table.to_batches(max_chunksize=20)
    raise InputError("the logs changed")


def open_files(folder: Path) -> list[str]:
    """The files in a folder that this process has open."""
    links = [
        os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)
    ]
    return [path for path in links if path.startswith(f"{folder}/")]


def _is_open(number: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{number}")


def test_an_error_leaves_no_file_open(
    writer: SampleWriter, logs: list[LogFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine_file, "BUFFER_BYTES", 0)  # written with the first broken line
    table = sorted_rows(logs)
    with pytest.raises(InputError, match="the logs changed") as error:
        writer.write_partition(0, failing(table))
    assert open_files(tmp_path) == []
    attempts = tmp_path / "staged" / ATTEMPTS
    assert len(list(attempts.glob("*.parquet"))) == 1
    assert len(list((attempts / QUARANTINE_FOLDER).glob("*.parquet"))) == 1
    assert error.tb is not None  # the frames that hold the files are still there


def test_a_partition_is_written_whole(writer: SampleWriter, logs: list[LogFile], tmp_path: Path) -> None:
    done = writer.write_partition(0, sorted_rows(logs).to_batches(max_chunksize=20))
    (part,) = done.parts
    path = tmp_path / "staged" / ATTEMPTS / part.name
    assert part.bytes == path.stat().st_size
    assert pq.ParquetFile(path).metadata.num_rows == sum(part.rows) == part.counts["rows"]
    assert part.quarantine == {"wrong_column_count": 1}
    assert open_files(tmp_path) == []
