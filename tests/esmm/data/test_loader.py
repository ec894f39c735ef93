"""The loader on real Parquet files, against a slow assembly from plain Python rows."""

import io
import threading
from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from esmm.batch import Batch
from esmm.data import arrow_files
from esmm.data.arrow_files import ArrowFiles
from esmm.data.loader import Loader
from esmm.data.petastorm_reader import OrderedResults
from esmm.data.schedule import Leg, Position, RowGroup
from esmm.embedding.bags import Bags, field_offsets
from schemas import samples
from schemas.fields import IMPRESSION_FIELDS, USER_FIELDS, Field
from storage import publishing
from storage.json_files import read_json, write_json
from tests.fixtures.loaders import epoch_ids, ids_from, open_loaders, sample_ids
from tests.fixtures.sample_files import TEST_BUCKETS, read_rows, write_samples

Row = dict[str, Any]
WeightedBag = list[tuple[int, float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "split=train"
    write_samples(path, num_rows=41, seed=1, num_files=3, rows_per_row_group=5)
    return path


# ---- What is in a batch ----------------------------------------------------------------------------


def weigh(field: Field, ids: list[int], weights: list[float]) -> WeightedBag:
    """Fused ids and final weights of one bag, as the design says it."""
    start = field_offsets(TEST_BUCKETS)[field.name]
    if field.name in ("109_14", "110_14", "127_14", "150_14", "210"):
        total = sum(weights)
        weights = [w / total for w in weights]
    return [(start + i, w) for i, w in zip(ids, weights, strict=True)]


def user_bag(row: Row, field: Field) -> WeightedBag:
    ids = row[field.column]
    ids = ids if field.multi else [ids]
    return weigh(field, ids, row[field.weight_column] if field.weighted else [1.0] * len(ids))


def impression_bag(row: Row, field: Field, i: int) -> WeightedBag:
    low, high = i, i + 1
    if field.multi:
        low = sum(row[field.length_column][:i])
        high = low + row[field.length_column][i]
    ids = row[field.column][low:high]
    return weigh(field, ids, row[field.weight_column][low:high] if field.weighted else [1.0] * len(ids))


def bag_of(bags: Bags, num_fields: int, field: int, owner: int) -> WeightedBag:
    low, high = bags.offsets[owner * num_fields + field : owner * num_fields + field + 2].tolist()
    return list(zip(bags.ids[low:high].tolist(), bags.weights[low:high].tolist(), strict=True))


def assert_same_bag(found: WeightedBag, expected: WeightedBag) -> None:
    assert [i for i, _ in found] == [i for i, _ in expected]
    assert [w for _, w in found] == pytest.approx([w for _, w in expected], rel=1e-5)


def check_batch(batch: Batch, of_sample: dict[int, tuple[Row, int]]) -> None:
    """Compare every impression of a batch with its row in the files."""
    assert batch.keys is not None
    for k, key in enumerate(batch.keys.to_pylist()):
        row, i = of_sample[key["sample_id"]]
        labels = {name: row[name][i] for name in ("click", "conversion")}
        assert (
            key
            == {name: row[name] for name in ("context_id", "user_id")}
            | {"sample_id": key["sample_id"]}
            | labels
        )
        assert (batch.click[k], batch.conversion[k]) == (labels["click"], labels["conversion"])
        context = int(batch.context_index[k])
        for f, field in enumerate(USER_FIELDS):
            assert_same_bag(bag_of(batch.user, len(USER_FIELDS), f, context), user_bag(row, field))
        for f, field in enumerate(IMPRESSION_FIELDS):
            found = bag_of(batch.impression, len(IMPRESSION_FIELDS), f, k)
            assert_same_bag(found, impression_bag(row, field, i))


@pytest.mark.parametrize("shuffle_window", [0, 12])
def test_batches_hold_what_the_rows_hold(folder: Path, shuffle_window: int) -> None:
    rows = read_rows(folder)
    of_sample = {sample_id: (row, i) for row in rows for i, sample_id in enumerate(row["sample_id"])}
    loader = Loader(str(folder), batch_size=7, shuffle_window=shuffle_window, seed=3, with_keys=True)
    batches = list(loader.epoch(Position.start(0)))
    for batch in batches:
        check_batch(batch, of_sample)
    # Seven does not divide the contexts, so some of them lie across a border.
    owners = [set(batch.keys["context_id"].to_pylist()) for batch in batches if batch.keys is not None]
    assert sum(map(len, owners)) > len(rows)


def test_contexts_appear_once_per_batch(folder: Path) -> None:
    for batch in Loader(str(folder), batch_size=30, shuffle_window=20, with_keys=True).epoch(
        Position.start(0)
    ):
        assert batch.keys is not None
        assert len(set(batch.keys["context_id"].to_pylist())) == batch.num_contexts
        assert batch.context_index.unique().tolist() == list(range(batch.num_contexts))


def test_without_shuffling_batches_follow_the_files(folder: Path) -> None:
    expected = [sample_id for row in read_rows(folder) for sample_id in row["sample_id"]]
    batches = epoch_ids(Loader(str(folder), batch_size=10, with_keys=True))
    assert [i for batch in batches for i in batch] == expected


def test_types(folder: Path) -> None:
    batch = next(Loader(str(folder), batch_size=10).epoch(Position.start(0)))
    assert batch.keys is None
    tensors = [batch.context_index, batch.click, batch.user.ids, batch.user.weights, batch.user.offsets]
    names = ["int64", "float32", "int32", "float32", "int32"]
    assert [str(tensor.dtype) for tensor in tensors] == [f"torch.{name}" for name in names]


# ---- Every impression once, and the same number of steps -------------------------------------------


@pytest.mark.parametrize("shuffle_window", [0, 16])
@pytest.mark.parametrize("world_size", [1, 2, 3, 12])  # 9 row groups: with 12 ranks three have none
def test_every_impression_once_over_all_ranks(folder: Path, world_size: int, shuffle_window: int) -> None:
    loaders = open_loaders(folder, world_size, batch_size=8 * world_size, shuffle_window=shuffle_window)
    schedule = loaders[0].plan(Position.start(1))
    batches = [epoch_ids(loader, epoch=1) for loader in loaders]
    everything = Counter(sample_id for row in read_rows(folder) for sample_id in row["sample_id"])
    assert Counter(i for rank in batches for batch in rank for i in batch) == everything
    for rank, loader in enumerate(loaders):
        assert loader.plan(Position.start(1)) == schedule
        sizes = [len(batch) for batch in batches[rank]]
        assert sizes == [schedule.batch_size_of(rank, step) for step in range(schedule.steps)]


def test_ranks_read_the_row_groups_of_the_schedule(folder: Path) -> None:
    loader = open_loaders(folder, 2, batch_size=16)[1]
    expected: list[int] = []
    for window in loader.plan(Position.start(0)).windows[1]:
        for group in window.groups:
            table = pq.ParquetFile(folder / group.file).read_row_group(group.index)
            expected += [i for ids in table["sample_id"].to_pylist() for i in ids]
    assert [i for batch in epoch_ids(loader) for i in batch] == expected


def test_no_row_group_is_lost_however_the_threads_run(tmp_path: Path) -> None:
    """Petastorm's pool may report the end too early; one row group per thread makes that likely."""
    write_samples(tmp_path / "s", num_rows=4, rows_per_row_group=1, num_files=1)
    loader = Loader(str(tmp_path / "s"), batch_size=5, with_keys=True, num_threads=4)
    first = epoch_ids(loader)
    for _ in range(30):
        assert epoch_ids(loader) == first


# ---- Going on with an epoch ------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle_window", [0, 12])
@pytest.mark.parametrize("stops", [[1], [3, 4], [2, 9, 1]])
def test_the_same_workers_get_the_batches_of_an_uninterrupted_epoch(
    folder: Path, shuffle_window: int, stops: list[int]
) -> None:
    loaders = open_loaders(folder, 2, batch_size=15, shuffle_window=shuffle_window)
    for loader in loaders:
        whole = list(loader.epoch(Position.start(1)))
        position = Position.start(1)
        for steps in stops:
            position = loader.after(position, steps)
        rest = list(loader.epoch(position))
        assert len(rest) == loader.plan(position).steps == len(whole) - sum(stops)
        assert [to_bytes(batch) for batch in rest] == [to_bytes(batch) for batch in whole[sum(stops) :]]


def to_bytes(batch: Batch) -> list[bytes]:
    """All that is in a batch, the layout of its contexts too."""
    bags = [
        getattr(side, n) for side in (batch.user, batch.impression) for n in ("ids", "weights", "offsets")
    ]
    tensors = [batch.context_index, batch.click, batch.conversion, *bags]
    return [tensor.numpy().tobytes() for tensor in tensors] + [repr(sample_ids(batch)).encode()]


@pytest.mark.parametrize("shuffle_window", [0, 12])
@pytest.mark.parametrize(
    "legs",
    [
        [Leg(2, 16, 5), Leg(1, 16, 3), Leg(3, 16, 99)],
        [Leg(1, 8, 1), Leg(1, 16, 1), Leg(12, 40, 2), Leg(2, 7, 4), Leg(5, 11, 99)],
        [Leg(3, 10, 99), Leg(2, 8, 99)],  # nothing is left for the second
    ],
)
def test_any_sequence_of_legs_gives_every_impression_once(
    folder: Path, legs: list[Leg], shuffle_window: int
) -> None:
    position, seen = Position.start(2), Counter[int]()
    for leg in legs:
        loaders = open_loaders(folder, leg.workers, batch_size=leg.batch_size, shuffle_window=shuffle_window)
        schedule = loaders[0].plan(position)
        steps = min(leg.steps, schedule.steps)
        for rank, loader in enumerate(loaders):
            batches = [sample_ids(batch) for batch in islice(loader.epoch(position), steps)]
            sizes = [schedule.batch_size_of(rank, step) for step in range(steps)]
            assert [len(batch) for batch in batches] == sizes
            seen.update(i for batch in batches for i in batch)
        position = loaders[0].after(position, steps)
    assert seen == Counter(sample_id for row in read_rows(folder) for sample_id in row["sample_id"])


def test_an_epoch_that_ends_too_early_is_no_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest would be empty batches, and nobody would know."""
    read_next, results = OrderedResults.read_next, count()

    def end_early(*arguments: Any) -> Any:
        if next(results) == 8:  # the last row group of the last window
            raise StopIteration
        return read_next(*arguments)

    monkeypatch.setattr(OrderedResults, "read_next", end_early)
    with pytest.raises(ValueError, match="shorter"):
        list(Loader(str(folder), batch_size=8, shuffle_window=12).epoch(Position.start(0)))


def test_what_is_consumed_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the row groups of the windows that are left are opened."""
    loader = open_loaders(folder, 1, batch_size=20, shuffle_window=10)[0]
    position = loader.after(Position.start(0), 8)
    needed = {(g.file, g.index) for window in loader.plan(position).windows[0] for g in window.groups}
    assert 0 < len(needed) < 9
    read: list[tuple[str, int]] = []

    def remember(files: ArrowFiles, group: RowGroup, columns: list[str]) -> pa.Table:
        read.append((group.file, group.index))
        return original(files, group, columns)

    original = ArrowFiles.read
    monkeypatch.setattr(ArrowFiles, "read", remember)
    assert sum(map(len, ids_from(loader, position))) > 0
    assert sorted(read) == sorted(needed)


class Noting(io.FileIO):
    """A file that notes how often it was opened and how often its end, the footer, was read."""

    opened: ClassVar[Counter[str]] = Counter()
    footers: ClassVar[Counter[str]] = Counter()

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.size = Path(path).stat().st_size
        Noting.opened[path] += 1

    def read(self, size: int = -1, /) -> bytes:
        data = super().read(size)
        Noting.footers[str(self.name)] += bool(data) and self.tell() == self.size
        return data


@pytest.mark.parametrize("shuffle_window", [0, 12])
def test_footers_are_read_once(folder: Path, shuffle_window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by each thread, and not again for each epoch or validation."""
    monkeypatch.setattr(arrow_files, "open_file", lambda fs, path: Noting(path))
    monkeypatch.setattr(Noting, "opened", Counter())
    monkeypatch.setattr(Noting, "footers", Counter())
    loader = Loader(str(folder), batch_size=16, shuffle_window=shuffle_window, num_threads=3)
    for epoch in (1, 2, 3, 0, 0):
        assert sum(batch.num_impressions for batch in loader.epoch(Position.start(epoch))) > 0
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    assert sorted(Noting.footers.items()) == [(file, 1) for file in files]
    assert sorted(Noting.opened.items()) == [(file, 5 * 3) for file in files]  # its row groups, five times


def test_no_more_footers_are_kept_than_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = epoch_ids(Loader(str(folder), batch_size=16, with_keys=True))
    monkeypatch.setattr(arrow_files, "FOOTERS_KEPT", 1)
    loader = Loader(str(folder), batch_size=16, with_keys=True)
    assert epoch_ids(loader) == epoch_ids(loader) == expected
    assert len(loader._files._footers) == 1


# ---- Order -----------------------------------------------------------------------------------------


def test_order_depends_on_seed_and_epoch_only(folder: Path) -> None:
    def ids(seed: int, epoch: int, num_threads: int) -> list[list[int]]:
        options = {"batch_size": 16, "shuffle_window": 10, "with_keys": True, "num_threads": num_threads}
        return epoch_ids(Loader(str(folder), seed=seed, **options), epoch)  # type: ignore[arg-type]

    reference = ids(0, 0, 2)
    assert ids(0, 0, 1) == ids(0, 0, 3) == reference
    assert ids(0, 1, 2) != reference
    assert ids(1, 0, 2) != reference


def test_row_groups_are_shuffled_too(folder: Path) -> None:
    def first_contexts(epoch: int) -> set[str]:
        batch = next(
            Loader(str(folder), batch_size=12, shuffle_window=1, with_keys=True).epoch(Position.start(epoch))
        )
        assert batch.keys is not None
        return set(batch.keys["context_id"].to_pylist())

    assert len({frozenset(first_contexts(epoch)) for epoch in range(8)}) > 3


# ---- Stopping early, errors ------------------------------------------------------------------------


def test_leaving_an_epoch_ends_its_threads(folder: Path) -> None:
    before = threading.active_count()
    loader = Loader(str(folder), batch_size=2, shuffle_window=10)
    for _ in loader.epoch(Position.start(0)):
        break
    assert threading.active_count() == before

    def fail(batch: Batch) -> None:
        raise RuntimeError("the trainer failed")

    with pytest.raises(RuntimeError, match="the trainer failed"):
        list(map(fail, loader.epoch(Position.start(1))))
    assert threading.active_count() == before
    assert len(list(loader.epoch(Position.start(2)))) == loader.plan(Position.start(0)).steps
    assert threading.active_count() == before
    assert loader.wait_seconds > 0


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A sample set of one's own to break."""
    write_samples(tmp_path / "s", num_rows=20, seed=2, num_files=2, rows_per_row_group=4)
    return tmp_path / "s"


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
    content["buckets"]["205"] = 2**31
    write_json(str(broken / samples.MANIFEST_NAME), content)
    with pytest.raises(InputError, match="expected at most 2147483647 buckets over all fields, found 214748"):
        load(broken)


# ---- Few data, many workers ------------------------------------------------------------------------


def test_more_workers_than_row_groups(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "esmm.data.loader"):
        loaders = open_loaders(folder, 12, batch_size=60)
    assert [record.getMessage() for record in caplog.records] == 12 * [
        f"{folder}: 9 row groups for 12 workers: 3 of them take part with empty batches"
    ]
    schedule = loaders[0].plan(Position.start(0))
    idle = [rank for rank, left in enumerate(schedule.num_impressions) if not left]
    assert len(idle) == 3
    for rank in idle:
        batches = list(loaders[rank].epoch(Position.start(0)))
        assert [batch.num_impressions for batch in batches] == [0] * schedule.steps


def test_a_batch_larger_than_the_data(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = sorted(i for row in read_rows(folder) for i in row["sample_id"])
    with caplog.at_level("INFO", "esmm.data.loader"):
        loader = Loader(str(folder), batch_size=5000, shuffle_window=8, with_keys=True)
    (batch,) = epoch_ids(loader)
    assert sorted(batch) == everything
    assert loader.plan(Position.start(0)).global_batch_size(0) == len(everything)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: {len(everything)} impressions, train.batch_size is 5000: a pass is 1 step(s)"
    ]


def test_fewer_impressions_per_step_than_workers(folder: Path) -> None:
    with pytest.raises(InputError, match=r"at least one impression per worker \(3\), found 2"):
        Loader(str(folder), batch_size=2, world_size=3)


# ---- Shapes of files, other file systems -----------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"num_rows": 3, "num_files": 5},  # files without rows
        {"num_rows": 1, "num_files": 1, "max_impressions": 1},
        {"num_rows": 12, "missing": 1.0},  # all lists empty, all ids missing, no user
        {"num_rows": 12, "missing": 0.0, "mean_list": 40.0},
    ],
)
def test_odd_sample_sets(tmp_path: Path, options: dict[str, Any]) -> None:
    write_samples(tmp_path / "s", **options)
    rows = read_rows(tmp_path / "s")
    of_sample = {sample_id: (row, i) for row in rows for i, sample_id in enumerate(row["sample_id"])}
    batches = list(
        Loader(str(tmp_path / "s"), batch_size=9, shuffle_window=4, with_keys=True).epoch(Position.start(0))
    )
    assert sorted(i for batch in batches for i in sample_ids(batch)) == sorted(of_sample)
    for batch in batches:
        check_batch(batch, of_sample)


def test_another_file_system(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/samples", recursive=True)
    try:
        found = epoch_ids(Loader("memory://bucket/samples", batch_size=10, shuffle_window=10, with_keys=True))
        assert found == epoch_ids(Loader(str(folder), batch_size=10, shuffle_window=10, with_keys=True))
    finally:
        memory.rm("/bucket", recursive=True)


def test_weights_of_bags_are_finite(folder: Path) -> None:
    for batch in Loader(str(folder), batch_size=50).epoch(Position.start(0)):
        for bags in (batch.user, batch.impression):
            assert np.isfinite(bags.weights.numpy()).all()
