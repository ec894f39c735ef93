"""Row groups that cannot be read: what is damage, what is left out, what goes on without it."""

import errno
import io
import json
import random
import re
from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cli.errors import InputError, StoreError
from esmm.data import arrow_files
from esmm.data.arrow_files import ArrowFiles
from esmm.data.broken_row_groups import SHIFTED
from esmm.data.loader import Loader
from esmm.data.row_group import RowLayout, Rows, from_table
from esmm.data.sample_check import ReplacedError, is_damage
from esmm.data.schedule import Position, RowGroup
from tests.fixtures.loaders import damage, epoch_ids, ids_from, open_loaders, sample_ids
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows

# ---- Damage, and what is none ----------------------------------------------------------------------


def spoil(content: bytes, rng: random.Random) -> bytes:
    """Cut off, or with other bytes somewhere, or a stretch of one byte."""
    place = rng.choice([rng.randrange(len(content)), len(content) - rng.randrange(1, 4000)])
    match rng.randrange(3):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + rng.randbytes(rng.randrange(1, 20)) + content[place + 20 :]
        case _:
            filling = bytes([rng.choice([0, 255])]) * len(content[place : place + rng.randrange(1, 4000)])
            return content[:place] + filling + content[place + len(filling) :]


def test_whatever_happens_to_the_bytes_of_a_file_is_damage(broken: Path) -> None:
    file, rng = broken / "part-00000.parquet", random.Random(0)
    content, met = file.read_bytes(), Counter[bool]()
    groups = Loader(str(broken), batch_size=8)._groups[:3]
    layout = RowLayout.of(TEST_SCHEMA, with_keys=True)
    for _ in range(150):
        file.write_bytes(spoil(content, rng))
        files = ArrowFiles(str(broken), TEST_SCHEMA)
        for group in groups:
            try:
                from_table(files.read(group, layout.column_names), layout)
            except ReplacedError:
                pass  # the footer says other numbers
            except Exception as error:
                met[is_damage(error)] += 1
    assert not met[False]
    assert met[True] > 100


WAYS_THAT_FAIL = [
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.EIO, "HTTP 500 Server Error", "hdfs://namenode:8020/samples"),
    OSError(errno.ESTALE, "Stale file handle"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    TimeoutError("timed out"),
    StoreError("hdfs://namenode:8020/samples: expected a namenode, found none that answers."),
]


class Failing(io.FileIO):
    """A file whose bytes cannot be reached."""

    error: Exception | None = None

    def readinto(self, *_: Any) -> Any:
        raise self.error  # type: ignore[misc]

    read = readall = readinto


@pytest.mark.parametrize("error", WAYS_THAT_FAIL, ids=lambda error: f"{type(error).__name__} {error}"[:30])
def test_what_is_no_damage_is_not_skipped(
    broken: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A file that is gone, a disk or a network that fails: whoever starts again will read it."""
    loader = Loader(str(broken), batch_size=8, skip_broken=True)
    monkeypatch.setattr(arrow_files, "open_file", lambda fs, path: Failing(path))
    monkeypatch.setattr(Failing, "error", error)
    with pytest.raises(
        InputError, match=f"row group 0: cannot be reached .*{re.escape(str(error))}.* network"
    ):
        list(loader.epoch(Position.start(0)))
    assert not loader.skipped


def test_an_error_of_the_program_is_not_skipped(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader(str(broken), batch_size=8, skip_broken=True)
    monkeypatch.setattr(arrow_files, "open_file", lambda fs, path: Failing(path))
    monkeypatch.setattr(Failing, "error", MemoryError("no memory left"))
    with pytest.raises(MemoryError, match="no memory left") as caught:
        list(loader.epoch(Position.start(0)))
    assert "part-00000.parquet, row group 0" in caught.value.__notes__[0]


# ---- Left out, and counted ---------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle_window", [0, 8])
def test_a_broken_row_group_is_left_out(
    broken: Path, shuffle_window: int, caplog: pytest.LogCaptureFixture
) -> None:
    everything = {i for row in read_rows(broken) for i in row["sample_id"]}
    lost = damage(broken)
    options = {"shuffle_window": shuffle_window, "skip_broken": True, "max_broken_share": 1.0}
    loaders = open_loaders(broken, 2, batch_size=16, **options)
    batches = [[sample_ids(batch) for batch in loader.epoch(Position.start(0))] for loader in loaders]
    assert Counter(i for rank in batches for batch in rank for i in batch) == Counter(everything - lost)
    schedule = loaders[0].plan(Position.start(0))
    assert [len(rank) for rank in batches] == [schedule.steps] * 2
    sizes = [sum(len(rank[step]) for rank in batches) for step in range(schedule.steps)]
    planned = [schedule.global_batch_size(step) for step in range(schedule.steps)]
    assert all(size <= plan for size, plan in zip(sizes, planned, strict=True))
    skipped = loaders[0].skipped | loaders[1].skipped
    assert [(group.file, group.index) for group in skipped] == [("part-00001.parquet", 0)]
    assert sum(planned) - sum(sizes) == len(lost) == sum(group.num_impressions for group in skipped)
    (record,) = caplog.records
    assert f"skipped with its {len(lost)} impressions" in record.getMessage()
    assert "part-00001.parquet, row group 0: cannot be read" in record.getMessage()


def test_a_broken_row_group_does_not_move_the_position(broken: Path) -> None:
    everything = {i for row in read_rows(broken) for i in row["sample_id"]}
    lost = damage(broken)
    options = {"shuffle_window": 8, "skip_broken": True, "max_broken_share": 1.0}
    (loader,) = open_loaders(broken, 1, batch_size=16, **options)
    whole = ids_from(loader, Position.start(0))
    for steps in range(1, len(whole)):
        assert ids_from(loader, loader.after(Position.start(0), steps)) == whole[steps:]
    later = open_loaders(broken, 3, batch_size=9, **options)
    rest = [batch for one in later for batch in ids_from(one, loader.after(Position.start(0), 3))]
    assert sorted(i for batch in (*whole[:3], *rest) for i in batch) == sorted(everything - lost)


def test_no_more_is_left_out_than_may_be(broken: Path) -> None:
    lost = len(damage(broken))
    (loader,) = open_loaders(broken, 1, batch_size=16, skip_broken=True)
    total = loader.manifest["counts"]["impressions"]
    message = rf"expected at most loader.max_broken_share \(0.01\) .* found {lost} of {total}\."
    with pytest.raises(InputError, match=message):
        list(loader.epoch(Position.start(0)))
    for share in (lost / total, 1.0):
        (loader,) = open_loaders(broken, 1, batch_size=16, skip_broken=True, max_broken_share=share)
        assert sum(map(len, epoch_ids(loader))) == total - lost


def test_a_footer_that_cannot_be_read_is_damage_of_its_row_groups(broken: Path) -> None:
    file = broken / "part-00001.parquet"
    file.write_bytes(b"x" * file.stat().st_size)
    (loader,) = open_loaders(broken, 1, batch_size=16, skip_broken=True, max_broken_share=1.0)
    kept = pq.read_table(broken / "part-00000.parquet")["sample_id"].to_pylist()
    assert [i for batch in epoch_ids(loader) for i in batch] == [i for ids in kept for i in ids]


# ---- Broken and mended in the middle of an epoch -----------------------------------------------------


class Breaking(Loader):
    """Row groups come from memory, but for those that are broken at the time."""

    contents: ClassVar[dict[tuple[str, int], Rows]] = {}
    broken: frozenset[int] = frozenset()

    def _read(self, wanted: list[RowGroup]) -> Generator[Rows | Exception, None, None]:
        for group in wanted:
            damaged = self._groups.index(group) in self.broken
            yield OSError("damaged") if damaged else self.contents[group.file, group.index]


@pytest.fixture
def breaking(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a `Breaking` may read."""
    layout = RowLayout.of(TEST_SCHEMA, with_keys=True)
    contents = {
        (path.name, index): from_table(file.read_row_group(index, layout.column_names), layout)
        for path in folder.glob("*.parquet")
        for file in [pq.ParquetFile(path)]
        for index in range(file.num_row_groups)
    }
    monkeypatch.setattr(Breaking, "contents", contents)
    return folder


@dataclass(frozen=True)
class Stretch:
    """Steps between two checkpoints, and the row groups that are broken meanwhile."""

    workers: int
    share: int
    steps: int
    broken: frozenset[int]


stretches = st.builds(
    Stretch, st.integers(1, 3), st.integers(3, 12), st.integers(0, 5), st.frozensets(st.integers(0, 8))
)


def take(loader: Loader, position: Position, steps: int) -> Counter[int]:
    """The sample ids of the next batches, some more of which are made ahead."""
    made = list(islice(loader._batches(position), steps + 2)) if steps else []
    return Counter(i for batch in made[:steps] for i in sample_ids(batch))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example([Stretch(1, 12, 3, frozenset([3])), Stretch(1, 12, 9, frozenset())])  # mended in the first window:
@example([Stretch(1, 12, 3, frozenset([1])), Stretch(1, 12, 9, frozenset())])  # repeated four, lost two
@given(st.lists(stretches, min_size=1, max_size=5))
def test_healthy_row_groups_come_once_whatever_breaks_and_is_mended(
    breaking: Path, caplog: pytest.LogCaptureFixture, stretches: list[Stretch]
) -> None:
    """Or the log says that one of a window's row groups broke in the middle of it."""
    caplog.clear()
    position, seen = Position.start(1), Counter[int]()
    for stretch in [*stretches, Stretch(2, 10, 10**6, stretches[-1].broken)]:
        left_out: set[int] = set()
        for rank in range(stretch.workers):
            loader = Breaking(
                str(breaking),
                rank=rank,
                world_size=stretch.workers,
                batch_size=stretch.workers * stretch.share,
                shuffle_window=12,
                with_keys=True,
                skip_broken=True,
                max_broken_share=1.0,
            )
            loader.broken = stretch.broken
            steps = min(stretch.steps, loader.plan(position).steps)
            seen += take(loader, position, steps)
            after = loader.after(position, steps)
            left_out.update(loader.left_out(after))
        saved = asdict(replace(after, left_out=tuple(sorted(left_out))))
        position = Position.from_json(json.loads(json.dumps(saved)))
    if SHIFTED in caplog.text:
        return
    ever_broken = frozenset().union(*(stretch.broken for stretch in stretches))
    groups = [(group.file, group.index) for group in loader._groups]
    ids = [Breaking.contents[group].keys["sample_id"].to_pylist() for group in groups]  # type: ignore[index]
    healthy = {i for number, part in enumerate(ids) if number not in ever_broken for i in part}
    assert healthy <= seen.keys()
    assert all(times == 1 for times in seen.values())


def test_a_row_group_that_breaks_within_its_window_is_told(
    breaking: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How its impressions divide among contexts is lost with it, so nobody can tell where the others are."""
    options = {"shuffle_window": 12, "skip_broken": True, "max_broken_share": 1.0}
    loader = Breaking(str(breaking), batch_size=10, **options)  # type: ignore[arg-type]
    position = loader.after(Position.start(1), 1)
    (window, *_) = loader.plan(position).windows[0]
    assert window.skip and len(window.groups) > 1
    loader.broken = frozenset([loader._groups.index(window.groups[0])])
    next(loader._batches(position))
    assert SHIFTED in caplog.text
    assert loader.left_out(position) == sorted(loader.broken)


def test_a_window_goes_on_without_the_row_group_that_it_lacked(
    broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Mended on the disk in the middle of an epoch, seen again in the next."""
    sound = (broken / "part-00001.parquet").read_bytes()
    lost = damage(broken)
    options = {"batch_size": 16, "shuffle_window": 8, "skip_broken": True, "max_broken_share": 1.0}
    (loader,) = open_loaders(broken, 1, **options)
    whole = ids_from(loader, Position.start(0))
    steps = next(n for n in range(1, len(whole)) if loader.left_out(loader.after(Position.start(0), n)))
    position = loader.after(Position.start(0), steps)
    position = replace(position, left_out=tuple(loader.left_out(position)))
    (broken / "part-00001.parquet").write_bytes(sound)
    (later,) = open_loaders(broken, 1, **options)
    assert ids_from(later, position) == whole[steps:]
    assert "part-00001.parquet, row group 0: readable again" in caplog.text
    assert lost <= {i for batch in epoch_ids(later, epoch=1) for i in batch}
