"""One holder of a lock at a time, also within one process."""

import os
from pathlib import Path

import pytest

from cli.errors import InputError
from storage.locks import locked_if_free, require_only_run, wait_for_lock


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    with locked_if_free(tmp_path) as first, locked_if_free(tmp_path) as second:
        assert (first, second) == (True, False)
        with pytest.raises(InputError, match=f"{tmp_path}: somebody is here"):
            require_only_run(tmp_path, "somebody is here").__enter__()
    with require_only_run(tmp_path, "somebody is here"), locked_if_free(tmp_path) as third:
        assert not third


def test_a_lock_that_is_waited_for_in_vain_is_named_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    wanted = rf"{path}: waited 0.2 s for this lock, found it held by process {os.getpid()} on "
    with wait_for_lock(path, 1), pytest.raises(InputError, match=wanted):
        wait_for_lock(path, 0.2).__enter__()
    with wait_for_lock(path, 0):
        assert "process" in path.read_text()
    assert path.read_text() == ""
