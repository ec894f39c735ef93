"""What the tests of the loader share: whom it gives which impressions, and files to break."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.data.schedule import Position


def sample_ids(batch: Batch) -> list[int]:
    assert batch.keys is not None
    return batch.keys["sample_id"].to_pylist()


def ids_from(loader: Loader, position: Position) -> list[list[int]]:
    return [sample_ids(batch) for batch in loader.epoch(position)]


def epoch_ids(loader: Loader, epoch: int = 0) -> list[list[int]]:
    return ids_from(loader, Position.start(epoch))


def open_loaders(folder: Path, world_size: int, **options: Any) -> list[Loader]:
    return [
        Loader(str(folder), rank=rank, world_size=world_size, with_keys=True, **options)
        for rank in range(world_size)
    ]


def damage(folder: Path) -> set[int]:
    """Make the first row group of the second file unreadable; the sample ids in it."""
    file = folder / "part-00001.parquet"
    lost = pq.ParquetFile(file).read_row_group(0, columns=["sample_id"])["sample_id"].to_pylist()
    content = bytearray(file.read_bytes())
    content[100:4000] = b"\xff" * 3900
    file.write_bytes(content)
    return {sample_id for ids in lost for sample_id in ids}
