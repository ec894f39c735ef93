"""Two namenodes that stand in for each other: Python finds the active one, also after it has died."""

from pathlib import Path

import pytest

from storage.filesystems import filesystem
from storage.json_files import read_json, write_json
from tests.fixtures.cluster.namenodes import two_namenodes

pytestmark = pytest.mark.timeout(300)


def test_the_active_namenode_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with two_namenodes(tmp_path) as namenodes:
        monkeypatch.setenv("HADOOP_CONF_DIR", str(namenodes.conf))
        write_json("hdfs://ns/first.json", {"written by": "b"})
        namenodes.kill("b")
        namenodes.activate("a")
        assert read_json("hdfs://ns/first.json") == {"written by": "b"}
        write_json("hdfs:///second.json", {"written by": "a"})
        fs, root = filesystem("hdfs://ns/")
        assert sorted(fs.ls(root, detail=False)) == ["/first.json", "/second.json"]
