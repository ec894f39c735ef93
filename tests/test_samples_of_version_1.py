"""Samples written by the first release: what is built today equals them, and today's loader reads them.

A failure here means that samples and models people already have no longer fit: raise
schemas.samples.SCHEMA_VERSION and say so, or mend the change.
"""

from pathlib import Path

import pyarrow.parquet as pq

from cli.version import WRITTEN_BY
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from jobs import build_samples
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import load_samples_config
from schemas import manifest
from tests.fixtures.ali_ccp import ALI_CCP, USER_FIELDS

FIRST = Path(__file__).parent / "fixtures" / "samples_v1"


def _with_sorted_lists(row: dict) -> dict:
    """The order of a user's list means nothing; the first release kept that of the logs."""
    row = dict(row)
    for field in USER_FIELDS:
        if field.multi:
            pairs = sorted(zip(row[field.column], row[field.weight_column], strict=True))
            row[field.column] = [i for i, _ in pairs]
            row[field.weight_column] = [w for _, w in pairs]
    return row


def test_the_same_logs_give_the_same_samples_as_then(spark, tmp_path):
    files = raw_files.find_logs(str(FIRST / "sample_skeleton.csv"), str(FIRST / "common_features.csv"))
    settings = load_samples_config(str(FIRST / "config.yaml"), ALI_CCP)
    build_samples.run(spark, TextLogs(files), ALI_CCP, settings, str(tmp_path / "today"), overwrite=False)
    then, today = (pq.read_table(f / "part-00000.parquet") for f in (FIRST / "samples", tmp_path / "today"))
    assert today.schema.equals(then.schema)
    assert [_with_sorted_lists(row) for row in today.to_pylist()] == [
        _with_sorted_lists(row) for row in then.to_pylist()
    ]
    old, new = manifest.read(str(FIRST / "samples")), manifest.read(str(tmp_path / "today"))
    for key in ("schema_version", "fingerprint", "hash", "hash_seed", "buckets", "counts", "quarantine"):
        assert old[key] == new[key]  # type: ignore[literal-required]
    assert manifest.schema_of(old) == manifest.schema_of(new)
    # Keys that came later: readers do without them.
    assert new.keys() - old.keys() == {"layout", "schema", "written_by"} and new["written_by"] == WRITTEN_BY
    assert [(f["rows"], f["impressions"]) for f in old["files"]] == [
        (f["rows"], f["impressions"]) for f in new["files"]
    ]


def test_the_loader_reads_them(tmp_path):
    (batch,) = Loader(str(FIRST / "samples"), batch_size=100, with_keys=True).epoch(Position.start(0))
    lines = [line.split(",") for line in (FIRST / "sample_skeleton.csv").read_text().splitlines()]
    assert batch.keys is not None
    found = zip(batch.keys["sample_id"].to_pylist(), batch.click.tolist(), strict=True)
    assert sorted(found) == sorted((int(line[0]), float(line[1])) for line in lines)
    assert batch.num_contexts == 5
