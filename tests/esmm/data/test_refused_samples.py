"""Samples that are not what they should be: the loader says which file, and what is wrong with it."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from schemas import samples
from storage import publishing
from storage.json_files import read_json, write_json
from tests.fixtures.sample_files import write_samples


def load(folder: Path) -> None:
    """Read everything; whatever happens, no thread may survive."""
    before = threading.active_count()
    try:
        list(Loader(str(folder), batch_size=8, shuffle_window=8, with_keys=True).epoch(Position.start(0)))
    finally:
        assert threading.active_count() == before


def rewrite(folder: Path, change: Any) -> None:
    """Replace the second file by a changed table of which the manifest knows the size only."""
    file = folder / "part-00001.parquet"
    pq.write_table(change(pq.read_table(file)), file, row_group_size=4)
    content = read_json(str(folder / samples.MANIFEST_NAME))
    content["files"][1]["bytes"] = file.stat().st_size
    write_json(str(folder / samples.MANIFEST_NAME), content)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder of samples, found nothing"):
        load(tmp_path / "nowhere")


def test_unpublished_folder(broken: Path) -> None:
    (broken / publishing.SUCCESS_NAME).unlink()
    with pytest.raises(InputError, match="expected published samples"):
        load(broken)


def test_missing_file(broken: Path) -> None:
    (broken / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match="part-00001.parquet: file not found, but the manifest names it"):
        load(broken)


def test_truncated_file(broken: Path) -> None:
    file = broken / "part-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="part-00001.parquet: expected .* bytes as in the manifest"):
        load(broken)


def test_file_that_is_not_parquet(broken: Path) -> None:
    file = broken / "part-00001.parquet"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(
        InputError, match="part-00001.parquet, row group .: cannot be read .*not a parquet file"
    ):
        load(broken)


def test_damaged_pages(broken: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = broken / "part-00001.parquet"
    content = bytearray(file.read_bytes())
    content[100:4000] = b"\xff" * 3900
    file.write_bytes(content)
    with pytest.raises(InputError, match="part-00001.parquet, row group 0: cannot be read"):
        load(broken)
    assert "Traceback" not in capfd.readouterr().err


def test_more_rows_than_the_manifest_counts(broken: Path) -> None:
    rewrite(broken, lambda table: pa.concat_tables([table, table]))
    with pytest.raises(InputError, match="part-00001.parquet: its row groups do not hold"):
        load(broken)


def test_fewer_row_groups_than_the_manifest_counts(broken: Path) -> None:
    rewrite(broken, lambda table: table.slice(0, 4))
    with pytest.raises(InputError, match="part-00001.parquet: its row groups do not hold"):
        load(broken)


def test_other_impressions_than_the_manifest_counts(broken: Path) -> None:
    rewrite(broken, lambda table: table.take(list(reversed(range(table.num_rows)))))
    with pytest.raises(InputError, match="part-00001.parquet: its row groups do not hold"):
        load(broken)


def spoilt(weight: float) -> Any:
    """The last weight of the column is another one."""

    def values(rows: list[list[float]]) -> list[list[float]]:
        last = max(i for i, row in enumerate(rows) if row)
        return [*rows[:last], [*rows[last][:-1], weight], *rows[last + 1 :]]

    return values


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("user_121", lambda rows: [57] * len(rows), "column user_121: expected buckets 0 to 56, found 57"),
        (
            "item_206",
            lambda rows: [[-1] * len(r) for r in rows],
            "column item_206: expected buckets .* found -1",
        ),
        ("item_205", lambda rows: [r + [1] for r in rows], "column item_205: its lists are not as long"),
        (
            "user_109_14_weight",
            lambda rows: [[] for _ in rows],
            "column user_109_14_weight: its lists are not as long",
        ),
        ("cross_853_length", lambda rows: [[9] * len(r) for r in rows], "cross_853_length: does not add up"),
        ("click", lambda rows: [[2] * len(r) for r in rows], "column click: expected 0 or 1, found 2"),
        ("conversion", lambda rows: [[-1] * len(r) for r in rows], "conversion: expected 0 or 1, found -1"),
        (
            "user_110_14_weight",
            spoilt(float("nan")),
            "user_110_14_weight: expected numbers of at least 0, found nan",
        ),
        (
            "cross_509_weight",
            spoilt(float("inf")),
            "cross_509_weight: expected numbers of at least 0, found inf",
        ),
        ("cross_853_weight", spoilt(-0.5), "cross_853_weight: expected numbers of at least 0, found -0.5"),
        ("user_122", lambda rows: [None] * len(rows), "column user_122: expected no nulls, found"),
        ("click", lambda rows: [[None] * len(r) for r in rows], "column click: expected no nulls, found"),
    ],
)
def test_values_that_contradict_the_schema(broken: Path, name: str, values: Any, message: str) -> None:
    def nullable(table: pa.Table) -> pa.Table:
        """Without the schema's `not null`, or nulls could not be written."""
        fields = [
            pa.field(f.name, pa.list_(f.type.value_type) if pa.types.is_list(f.type) else f.type)
            for f in table.schema
        ]
        return table.cast(pa.schema(fields))

    def change(table: pa.Table) -> pa.Table:
        table = nullable(table)
        index = table.column_names.index(name)
        column = pa.array(values(table[name].to_pylist()), table.schema.field(name).type)
        return table.set_column(index, table.schema.field(name), column)

    rewrite(broken, change)
    with pytest.raises(InputError, match=f"part-00001.parquet, row group .: .*{message}"):
        load(broken)


def test_missing_column(broken: Path) -> None:
    rewrite(broken, lambda table: table.drop(["item_216"]))
    with pytest.raises(InputError, match="part-00001.parquet, row group .: column item_216 is missing"):
        load(broken)


def test_column_of_another_type(broken: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        index = table.column_names.index("user_121")
        return table.set_column(index, "user_121", table["user_121"].cast(pa.int64()))

    rewrite(broken, change)
    with pytest.raises(InputError, match="column user_121: expected int32, found int64"):
        load(broken)


def test_no_impressions(tmp_path: Path) -> None:
    write_samples(tmp_path / "s", num_rows=0, num_files=1)
    with pytest.raises(InputError, match="expected at least one impression, found none"):
        load(tmp_path / "s")


def test_more_buckets_than_ids_can_tell_apart(broken: Path) -> None:
    content = read_json(str(broken / samples.MANIFEST_NAME))
    for field in content["schema"]["fields"][:2]:
        field["buckets"] = 2**30
    write_json(str(broken / samples.MANIFEST_NAME), content)
    with pytest.raises(InputError, match="expected at most 2147483647 buckets over all fields, found 214748"):
        load(broken)
