"""Writes small random sample sets, valid by `schemas.samples`, for the tests of `esmm`.

Not a model of real behaviour: ids and labels are independent of each other, unless clicks are asked for
that can be learnt. What it does keep is the shape of the data: jagged and empty lists, missing ids, absent
users, contexts of one to many impressions.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas import manifest, samples
from schemas.fields import FIELDS, IMPRESSION_FIELDS, USER_FIELDS, Field
from storage import publishing
from storage.json_files import write_json

# Small enough that ids repeat within and across contexts.
TEST_BUCKETS: dict[str, int] = {field.name: 50 + 7 * index for index, field in enumerate(FIELDS)}


def write_samples(
    folder: str | Path,
    *,
    num_rows: int = 40,
    seed: int = 0,
    buckets: dict[str, int] | None = None,
    rows_per_row_group: int = 8,
    num_files: int = 2,
    max_impressions: int = 12,
    mean_list: float = 6.0,
    missing: float = 0.2,
    hash_seed: int = 0,
    learnable: bool = False,
) -> manifest.Manifest:
    """Write and publish `num_rows` contexts over `num_files` files; return the manifest.

    Contexts hold 1..max_impressions impressions, lists `mean_list` values on average. `missing` is the
    share of absent single values, empty lists and null user ids. learnable: the position decides on the
    clicks, most of the time.
    """
    buckets = buckets or TEST_BUCKETS
    rng = np.random.default_rng(seed)
    rows = _random_rows(rng, num_rows, buckets, max_impressions, mean_list, missing)
    if learnable:
        rows = [row | _learnable_clicks(rng, len(row["sample_id"])) for row in rows]
    out = Path(folder)
    out.mkdir(parents=True)
    files = []
    for number, part in enumerate(np.array_split(np.arange(num_rows), num_files)):
        table = pa.Table.from_pylist([rows[i] for i in part], schema=samples.arrow_schema())
        files.append(_write_file(out / f"part-{number:05d}.parquet", table, rows_per_row_group))
    content = manifest.build(
        hash_seed=hash_seed, buckets=buckets, counts=_counts(rows), quarantine={}, source={}, files=files
    )
    write_json(f"{out}/{samples.MANIFEST_NAME}", dict(content))
    (out / publishing.SUCCESS_NAME).touch()
    return content


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """All rows of a sample set as plain Python, in file order: the slow and obvious way to read it."""
    rows: list[dict[str, Any]] = []
    for file in sorted(Path(folder).glob("part-*.parquet")):
        rows += pq.read_table(file).to_pylist()
    return rows


def _write_file(path: Path, table: pa.Table, rows_per_row_group: int) -> manifest.FileEntry:
    pq.write_table(table, path, row_group_size=rows_per_row_group, compression="zstd")
    lengths = [len(ids) for ids in table["sample_id"].to_pylist()]
    groups = [lengths[i : i + rows_per_row_group] for i in range(0, len(lengths), rows_per_row_group)]
    return manifest.FileEntry(
        name=path.name,
        bytes=path.stat().st_size,
        rows=[len(group) for group in groups],
        impressions=[sum(group) for group in groups],
    )


def _random_rows(
    rng: np.random.Generator,
    num_rows: int,
    buckets: dict[str, int],
    max_impressions: int,
    mean_list: float,
    missing: float,
) -> list[dict[str, Any]]:
    rows, next_sample_id = [], 1
    for number in range(num_rows):
        num_impressions = int(rng.integers(1, max_impressions + 1))
        absent_user = rng.random() < missing
        click = rng.random(num_impressions) < 0.3
        row: dict[str, Any] = {
            "context_id": f"{number:016x}",
            "user_id": None if absent_user else int(rng.integers(1, 1000)),
            "sample_id": list(range(next_sample_id, next_sample_id + num_impressions)),
            "click": click.astype(np.int8).tolist(),
            "conversion": (click & (rng.random(num_impressions) < 0.3)).astype(np.int8).tolist(),
        }
        next_sample_id += num_impressions
        for field in USER_FIELDS:
            row |= _user_values(rng, field, buckets[field.name], mean_list, missing)
        if absent_user:
            row["user_101"] = 0
        for field in IMPRESSION_FIELDS:
            row |= _impression_values(rng, field, buckets[field.name], num_impressions, missing)
        rows.append(row)
    return rows


def _learnable_clicks(rng: np.random.Generator, num_impressions: int) -> dict[str, Any]:
    """Four positions, two of which are clicked; every second click converts."""
    position = rng.integers(1, 5, num_impressions)
    click = rng.random(num_impressions) < np.where(position % 2, 0.9, 0.05)
    conversion = click & (rng.random(num_impressions) < 0.5)
    return {
        "context_301": position.tolist(),
        "click": click.astype(np.int8).tolist(),
        "conversion": conversion.astype(np.int8).tolist(),
    }


def _user_values(
    rng: np.random.Generator, field: Field, buckets: int, mean_list: float, missing: float
) -> dict[str, Any]:
    absent = rng.random() < missing
    if not field.multi:
        return {field.column: 0 if absent else int(rng.integers(1, buckets))}
    length = 0 if absent else int(rng.poisson(mean_list))
    values = {field.column: rng.integers(1, buckets, length).tolist()}
    if field.weighted:
        values[field.weight_column] = _weights(rng, length)
    return values


def _impression_values(
    rng: np.random.Generator, field: Field, buckets: int, num_impressions: int, missing: float
) -> dict[str, Any]:
    present = rng.random(num_impressions) >= missing
    if not field.multi:
        ids = rng.integers(1, buckets, num_impressions) * present
        values: dict[str, Any] = {field.column: ids.tolist()}
        if field.weighted:
            weights = np.array(_weights(rng, num_impressions), np.float32) * present
            values[field.weight_column] = weights.tolist()
        return values
    lengths = rng.integers(1, 5, num_impressions) * present
    total = int(lengths.sum())
    values = {field.column: rng.integers(1, buckets, total).tolist(), field.length_column: lengths.tolist()}
    if field.weighted:
        values[field.weight_column] = _weights(rng, total)
    return values


def _weights(rng: np.random.Generator, length: int) -> list[float]:
    """Values ln(1+n) of counts n, as in the raw logs."""
    return np.log1p(rng.integers(1, 20, length)).astype(np.float32).tolist()


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "contexts": len(rows),
        "rows": len(rows),
        "impressions": sum(len(row["sample_id"]) for row in rows),
        "clicks": sum(sum(row["click"]) for row in rows),
        "conversions": sum(sum(row["conversion"]) for row in rows),
        "tokens": sum(_num_tokens(row) for row in rows),
    }


def _num_tokens(row: dict[str, Any]) -> int:
    total = 0
    for field in FIELDS:
        value = row[field.column]
        if not field.multi:
            total += int(np.count_nonzero(value))
        else:
            total += len(value)
    return total
