"""Sample sets that the tests of the loader share."""

from pathlib import Path

import pytest

from tests.fixtures.sample_files import write_samples


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "split=train"
    write_samples(path, num_rows=41, seed=1, num_files=3, rows_per_row_group=5)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A sample set of one's own to break."""
    write_samples(tmp_path / "s", num_rows=20, seed=2, num_files=2, rows_per_row_group=4)
    return tmp_path / "s"
