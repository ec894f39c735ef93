"""One holder of a folder's lock at a time, also within one process."""

from pathlib import Path

import pytest

from cli.errors import InputError
from storage.locks import locked_if_free, require_only_run


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    with locked_if_free(tmp_path) as first, locked_if_free(tmp_path) as second:
        assert (first, second) == (True, False)
        with pytest.raises(InputError, match=f"{tmp_path}: somebody is here"):
            require_only_run(tmp_path, "somebody is here").__enter__()
    with require_only_run(tmp_path, "somebody is here"), locked_if_free(tmp_path) as third:
        assert not third
