"""What the loader reads of the files of samples, and where they may lie."""

import io
from collections import Counter
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pytest

from esmm.data import arrow_files
from esmm.data.arrow_files import ArrowFiles
from esmm.data.loader import Loader
from esmm.data.schedule import Position, RowGroup
from tests.fixtures.loaders import epoch_ids, ids_from, open_loaders


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


def test_another_file_system(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/samples", recursive=True)
    try:
        found = epoch_ids(Loader("memory://bucket/samples", batch_size=10, shuffle_window=10, with_keys=True))
        assert found == epoch_ids(Loader(str(folder), batch_size=10, shuffle_window=10, with_keys=True))
    finally:
        memory.rm("/bucket", recursive=True)
