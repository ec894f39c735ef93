"""What is in a folder of samples, wherever it lies, in a form in which two of them can be compared."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas import ids, manifest
from schemas.fields import USER_FIELDS
from schemas.samples import QUARANTINE_FOLDER
from storage.filesystems import filesystem
from storage.json_files import read_json

HISTORIES = [field for field in USER_FIELDS if field.multi and field.weighted]
# What depends on how the work was cut and on where things lie, not on the logs. An id table's digest is
# part of the fingerprint.
PLACE = ("files", "source", "id_table")


def table(folder: str) -> pa.Table:
    """All rows of all Parquet files of a folder."""
    fs, path = filesystem(folder)
    tables = []
    for name in sorted(fs.glob(f"{path}/*.parquet")):
        with fs.open(name, "rb") as stream:
            tables.append(pq.read_table(stream))
    return pa.concat_tables(tables)


def rows_in_order(rows: pa.Table) -> list[dict[str, Any]]:
    """Samples by context and first impression, the histories of a context by bucket.

    The order of a history depends on the place of its row in a file, and so on how the files were cut.
    """
    found = sorted(rows.to_pylist(), key=lambda row: (row["context_id"], row["sample_id"][0]))
    for row in found:
        for field in HISTORIES:
            pairs = sorted(zip(row[field.column], row[field.weight_column], strict=True))
            row[field.column] = [bucket for bucket, _ in pairs]
            row[field.weight_column] = [weight for _, weight in pairs]
    return found


def names(folder: str) -> list[str]:
    """The names in a folder."""
    fs, path = filesystem(folder)
    return sorted(name.rpartition("/")[2] for name in fs.ls(path, detail=False))


def assert_same_samples(found: str, expected: str) -> None:
    """Two published sets of samples hold the same impressions, values, quarantined lines and counts."""
    one, two = manifest.read(found), manifest.read(expected)
    assert {k: v for k, v in one.items() if k not in PLACE} == {
        k: v for k, v in two.items() if k not in PLACE
    }
    assert one["counts"]["impressions"] > 1000
    assert sorted(names(found)) == sorted(["_SUCCESS", "_manifest.json", *broken(one), *files(one)])
    assert rows_in_order(table(found)) == rows_in_order(table(expected))
    if broken(one):
        lines = [table(f"{folder}/{QUARANTINE_FOLDER}").to_pydict() for folder in (found, expected)]
        kept = [sorted(zip(t["reason"], t["offset"], t["text"], strict=True)) for t in lines]
        assert kept[0] == kept[1]


def files(content: manifest.Manifest) -> list[str]:
    return [entry["name"] for entry in content["files"]]


def broken(content: manifest.Manifest) -> list[str]:
    return [QUARANTINE_FOLDER] if content["quarantine"] else []


def assert_same_ids(found: str, expected: str) -> None:
    """Two published id tables know the same ids, give them the same buckets and report the same figures."""
    one, two = (dict(ids.read(folder)) | {"source": None} for folder in (found, expected))
    assert one == two
    rows, same = (
        table(folder).sort_by([("field", "ascending"), ("id", "ascending")]) for folder in (found, expected)
    )
    assert rows.num_rows > 1000
    assert rows.equals(same)


def assert_same_values(found: str, expected: str, least: int = 20) -> None:
    """Two JSON files of metrics or profiles hold the same values, but for the paths they name."""
    one, two = (dict(leaves(read_json(path) | {"source": None})) for path in (found, expected))
    assert len(two) >= least
    assert one.keys() == two.keys()
    for name, value in two.items():
        # Sums of floats in another order.
        assert one[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name


def leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested JSON objects by their dotted names."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
