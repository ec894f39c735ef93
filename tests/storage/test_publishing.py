"""Whole or not at all: publishing, replacing, and what readers are told about folders that don't fit."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from cli import config_files
from cli.errors import InputError
from schemas import manifest, samples
from schemas.manifest import SampleSet
from storage import outputs, publishing
from storage.filesystems import filesystem
from storage.json_files import read_json, write_json
from tests.fixtures.ali_ccp import ALI_CCP
from tests.programs.publish_at_once import FILES_OF_A_JOB, publish_at_once

SCHEMA = ALI_CCP.with_buckets(dict.fromkeys(ALI_CCP.index, 10))


def staged(out: Path, text: str) -> str:
    staging = publishing.staging_name(str(out))
    Path(staging).mkdir(parents=True)
    (Path(staging) / "file").write_text(text)
    return staging


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_publishing_replaces_a_whole_folder_by_a_whole_folder(tmp_path: Path):
    out = tmp_path / "deep" / "out"
    publishing.publish(staged(out, "first"), str(out), overwrite=False)
    (out / "only-in-the-first").touch()
    publishing.publish(staged(out, "second"), str(out), overwrite=True)
    assert (out / "file").read_text() == "second"
    assert names(out) == ["_SUCCESS", "file"]
    assert names(out.parent) == ["out"]


def test_publishing_takes_the_place_of_an_empty_folder_but_of_nothing_else(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    publishing.publish(staged(out, "first"), str(out), overwrite=False)
    second = staged(out, "second")
    with pytest.raises(InputError, match="another job has published there while this one was running"):
        publishing.publish(second, str(out), overwrite=False)
    assert (out / "file").read_text() == "first"
    assert names(out) == ["_SUCCESS", "file"]
    assert names(tmp_path) == sorted([Path(second).name, "out"])


STAGED = {
    "part-0.parquet": "a",
    "part-1.parquet": "b",
    "_quarantine/part-0.parquet": "c",
    "_manifest.json": '{"schema_version": 1, "fingerprint": "0c46065c3df3b5c4"}',
}


class Store:
    """A folder on fsspec's memory://, which renames by copying, as object stores do. copied: names, in order.
    fail_at: the copy of that name fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = f"memory://{uuid.uuid4().hex}/out"
        self.fs, self.path = filesystem(self.url)
        self.copied: list[str] = []
        self.fail_at = ""
        copy = type(self.fs).cp_file

        def cp_file(fs: object, source: str, target: str, **options: object) -> None:
            name = target.removeprefix(f"{self.path}/")
            assert not self.is_complete() or name == "_SUCCESS", "complete before all of it is there"
            if name == self.fail_at:
                raise OSError(5, "connection lost", target)
            self.copied.append(name)
            copy(fs, source, target, **options)

        monkeypatch.setattr(type(self.fs), "cp_file", cp_file)

    def is_complete(self) -> bool:
        return publishing.is_complete(self.url)

    def stage(self, content: dict[str, str]) -> str:
        staging = publishing.staging_name(self.url)
        fs, path = filesystem(staging)
        for name, text in content.items():
            fs.pipe_file(f"{path}/{name}", text.encode())
        return staging

    def read(self, url: str) -> dict[str, str]:
        fs, path = filesystem(url)
        return {name.removeprefix(f"{path}/"): fs.cat_file(name).decode() for name in fs.find(path)}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


def test_without_a_rename_files_are_copied_and_the_mark_last(store: Store):
    staging = store.stage(STAGED)
    publishing.publish(staging, store.url, overwrite=False)
    assert store.read(store.url) == {**STAGED, "_SUCCESS": ""}
    assert store.copied[-2:] == ["_manifest.json", "_SUCCESS"]
    assert store.read(staging) == {}
    second = store.stage({"part-0.parquet": "other"})
    with pytest.raises(InputError, match="another job has published there"):
        publishing.publish(second, store.url, overwrite=False)
    publishing.discard(second)
    assert store.read(second) == {}
    assert store.read(store.url) == {**STAGED, "_SUCCESS": ""}


@pytest.mark.parametrize("fail_at", ["part-1.parquet", "_manifest.json", "_SUCCESS"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_copy_that_fails_is_not_taken_for_the_whole_and_nothing_is_lost(
    store: Store, fail_at: str, overwrite: bool
):
    if overwrite:
        publishing.publish(store.stage({"part-0.parquet": "old", "part-9.parquet": "old"}), store.url, False)
    store.fail_at = fail_at
    staging = store.stage(STAGED)
    with pytest.raises(InputError, match=f"connection lost.* It is kept whole in {staging}"):
        publishing.publish(staging, store.url, overwrite)
    publishing.discard(staging)  # as every job does in the end, or with what its output was staged in:
    publishing.discard(staging.rpartition("/")[0])
    assert store.read(staging) == {**STAGED, "_SUCCESS": ""}
    assert not store.is_complete()
    with pytest.raises(InputError, match="expected published samples"):
        publishing.require_published(store.url, "samples", "jobs.build_samples")
    store.fail_at = ""
    with pytest.raises(InputError, match="--overwrite"):
        outputs.refuse_taken(store.url, manifest.OUTPUT, overwrite=False)
    outputs.refuse_taken(store.url, manifest.OUTPUT, overwrite=True)
    outputs.publish(store.stage(STAGED), store.url, manifest.OUTPUT, overwrite=True)
    assert store.read(store.url) == {**STAGED, "_SUCCESS": ""}


def test_json_on_an_object_store_is_one_object(store: Store):
    write_json(f"{store.url}/x.json", {"n": 1})
    write_json(f"{store.url}/x.json", {"n": 2})
    assert read_json(f"{store.url}/x.json") == {"n": 2}
    assert list(store.read(store.url)) == ["x.json"]
    assert store.copied == []


def test_a_path_of_an_unknown_file_system_is_refused():
    with pytest.raises(InputError, match="foo://x: .*Protocol not known"):
        filesystem("foo://x")


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_jobs_that_publish_at_once_one_wins_whole(tmp_path: Path, overwrite: bool):
    outcome = publish_at_once(str(tmp_path / "out"), jobs=6, rounds=5, overwrite=overwrite)
    for winners, content in outcome:
        assert len(winners) == (6 if overwrite else 1)
        assert len(content) == FILES_OF_A_JOB
        assert set(content) <= winners
        assert len(set(content)) == 1
    assert names(tmp_path) == ["out"]


def test_json_is_written_whole_and_read_with_clear_errors(tmp_path: Path):
    path = tmp_path / "a" / "x.json"
    write_json(str(path), {"n": 1})
    write_json(str(path), {"n": 2})
    assert read_json(str(path)) == {"n": 2}
    assert names(path.parent) == ["x.json"]
    for text, message in (("{", "expected JSON"), ("[]", "expected a JSON object, found list")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_json(str(path))


def write_manifest(folder: Path, hash_seed: int = 0, **changes: object) -> str:
    folder.mkdir()
    content = manifest.build(
        schema=SCHEMA, hash_seed=hash_seed, counts={}, quarantine={}, source={}, files=[]
    )
    (folder / samples.MANIFEST_NAME).write_text(json.dumps({**content, **changes}))
    (folder / publishing.SUCCESS_NAME).touch()
    return str(folder)


def test_samples_of_another_version_or_not_published_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="expected a folder of samples, found nothing"):
        manifest.read(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="schema version 1, found 99.*Build them again"):
        manifest.read(write_manifest(tmp_path / "future", schema_version=99))
    unpublished = Path(write_manifest(tmp_path / "unpublished"))
    (unpublished / publishing.SUCCESS_NAME).unlink()
    with pytest.raises(InputError, match="expected published samples"):
        manifest.read(str(unpublished))
    (unpublished / publishing.SUCCESS_NAME).touch()
    (unpublished / samples.MANIFEST_NAME).unlink()
    with pytest.raises(InputError, match="found a folder of something else"):
        manifest.read(str(unpublished))


def test_samples_of_other_hash_settings_do_not_go_together(tmp_path: Path):
    first = SampleSet.read(write_manifest(tmp_path / "a"))
    second = SampleSet.read(write_manifest(tmp_path / "b", hash_seed=7))
    manifest.require_same(first, SampleSet.read(write_manifest(tmp_path / "c")))
    with pytest.raises(InputError, match="hash_seed: 0 -> 7"):
        manifest.require_same(first, second)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "expected YAML"),
        ("- 1", "expected sections"),
        (
            "sampels: {}\nmodle: {}",
            r"unknown section sampels \(did you mean samples\?\), modle \(did you mean model\?\)",
        ),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        config_files.read_yaml(str(path))


@pytest.mark.parametrize(
    "command",
    [
        ["jobs.make_demo_logs", "--contexts", "4", "--out", "{blocked}/out"],
        ["esmm.train", "--config", "configs/demo.yaml", "--train", "x", "--valid", "x", "--run", "y"],
    ],
)
def test_a_path_that_cannot_be_used_is_one_message(tmp_path: Path, command: list[str]):
    blocked = tmp_path / "file"
    blocked.touch()
    line = [sys.executable, "-m", *(part.format(blocked=blocked) for part in command)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
