"""What --overwrite may replace: outputs of the command's own kind, and nothing that holds anything else."""

import json
from pathlib import Path

import pytest

from cli.errors import InputError
from jobs import make_demo_logs
from jobs.sample_writer import rejected
from schemas import ids, manifest, predictions
from storage import outputs, publishing
from storage.filesystems import filesystem

# What the outputs of every command held before there were kinds.
OUTPUTS: dict[str, tuple[outputs.Kind, dict[str, str]]] = {
    "samples": (
        manifest.OUTPUT,
        {
            "_manifest.json": '{"schema_version": 1, "fingerprint": "0c46065c3df3b5c4"}',
            "part-00000.parquet": "",
            "00003-0123456789abcdef0123456789abcdef.parquet": "",
            "_quarantine/part-00012.parquet": "",
        },
    ),
    "predictions": (
        predictions.OUTPUT,
        {"_manifest.json": '{"rows": 1, "run": "runs/a", "step": 7}', "part-00001.parquet": ""},
    ),
    "id table": (
        ids.OUTPUT,
        {
            "_ids.json": '{"version": 1, "digest": "0c46065c3df3b5c4"}',
            "part-00000-4f3f1a7e-c000.zstd.parquet": "",
            ".part-00000-4f3f1a7e-c000.zstd.parquet.crc": "",
            "._SUCCESS.crc": "",
        },
    ),
    "demo logs": (
        make_demo_logs.OUTPUT,
        {
            "demo_logs.json": '{"options": {}, "world": {}, "splits": {}}',
            "truth_test.csv": "",
            "sample_skeleton_train.csv": "",
        },
    ),
}


def write(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


@pytest.fixture(params=OUTPUTS)
def output(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[outputs.Kind, Path]:
    """A published output of each command."""
    kind, files = OUTPUTS[request.param]
    return kind, Path(write(tmp_path / "out", {**files, "_SUCCESS": ""}))


def test_a_command_replaces_its_own_outputs_whole_or_not(output):
    kind, out = output
    outputs.refuse_taken(str(out), kind, overwrite=True)
    (out / "_SUCCESS").unlink()
    outputs.refuse_taken(str(out), kind, overwrite=True)
    with pytest.raises(InputError, match="--overwrite"):
        outputs.refuse_taken(str(out), kind, overwrite=False)


@pytest.mark.parametrize("name", ["thesis.txt", ".hidden", "checkpoints/x", "_quarantine/notes.txt"])
def test_nothing_is_replaced_that_holds_something_else_too(output, name: str):
    kind, out = output
    write(out, {name: ""})
    with pytest.raises(InputError, match=rf"expected nothing.*{kind.content}.*found a folder with"):
        outputs.refuse_taken(str(out), kind, overwrite=True)


def test_no_command_replaces_the_outputs_of_another(output):
    own, out = output
    for kind, _ in OUTPUTS.values():
        if kind is not own:
            with pytest.raises(InputError, match="Nothing was replaced"):
                outputs.refuse_taken(str(out), kind, overwrite=True)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"part-00000.parquet": ""}, r"without the _manifest\.json of samples"),
        ({"_manifest.json": "{"}, r"without the _manifest\.json of samples"),
        ({"_manifest.json": "[]"}, r"without the _manifest\.json of samples"),
        ({"a": "", "b": "", "c": "", "d": ""}, "with a, b, c in it"),
    ],
)
def test_a_folder_is_told_by_its_manifest(tmp_path: Path, files: dict[str, str], found: str | None):
    (tmp_path / "out").mkdir()
    out = write(tmp_path / "out", files)
    if found is None:
        outputs.refuse_taken(out, manifest.OUTPUT, overwrite=True)
        outputs.refuse_taken(out, manifest.OUTPUT, overwrite=False)
    else:
        with pytest.raises(InputError, match=found):
            outputs.refuse_taken(out, manifest.OUTPUT, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_not_replaced_and_nothing_is_free(tmp_path: Path, overwrite: bool):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="found a file"):
        outputs.refuse_taken(str(tmp_path / "file"), manifest.OUTPUT, overwrite)
    outputs.refuse_taken(str(tmp_path / "new"), manifest.OUTPUT, overwrite)
    outputs.refuse_taken("memory://nowhere/out", manifest.OUTPUT, overwrite)


def test_what_came_there_during_the_work_is_not_replaced_either(tmp_path: Path):
    kind, files = OUTPUTS["samples"]
    out = write(tmp_path / "out", files)
    staged = write(tmp_path / "staged", files)
    outputs.refuse_taken(out, kind, overwrite=True)
    write(tmp_path / "out", {"thesis.txt": "mine"})
    with pytest.raises(InputError, match="thesis.txt"):
        outputs.publish(staged, out, kind, overwrite=True)
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"
    (tmp_path / "out/thesis.txt").unlink()
    outputs.publish(staged, out, kind, overwrite=True)
    assert publishing.is_complete(out)


def test_on_other_file_systems_it_is_the_same():
    fs, path = filesystem("memory://outputs/samples")
    for name, text in OUTPUTS["samples"][1].items():
        fs.pipe_file(f"{path}/{name}", text.encode())
    outputs.refuse_taken("memory://outputs/samples", manifest.OUTPUT, overwrite=True)
    fs.pipe_file(f"{path}/thesis.txt", b"mine")
    with pytest.raises(InputError, match=r"found a folder with thesis\.txt in it"):
        outputs.refuse_taken("memory://outputs/samples", manifest.OUTPUT, overwrite=True)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("samples", "samples/valid"),
        ("samples", "samples/"),
        ("samples/", "samples/a/../valid"),
        ("link/valid", "samples"),
        ("memory://a/samples", "memory://a/samples/valid/"),
        ("hdfs://namenode:8020/a/samples", "hdfs://namenode:8020/a/b/../samples"),
    ],
)
def test_an_output_inside_another_is_refused_in_both_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, two: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").mkdir()
    (tmp_path / "link").symlink_to("samples")
    for folders in ([one, two], [two, one]):
        with pytest.raises(InputError, match="expected a folder outside the other output"):
            outputs.refuse_nested(folders)


def test_outputs_side_by_side_are_no_nested_ones(tmp_path: Path):
    outputs.refuse_nested([str(tmp_path / "samples")])
    for two in (f"{tmp_path}/samples-valid", f"{tmp_path}/samples=valid/", f"memory:/{tmp_path}/samples"):
        outputs.refuse_nested([f"{tmp_path}/samples", two])


@pytest.mark.parametrize(
    ("out", "kept"),
    [
        ("samples/split=train/", "samples/_rejected/split=train"),
        ("samples", "_rejected/samples"),
        ("/samples", "/_rejected/samples"),
        ("hdfs://namenode:8020/a/b", "hdfs://namenode:8020/a/_rejected/b"),
    ],
)
def test_rejected_lines_are_kept_beside_the_output(out: str, kept: str):
    assert rejected.folder_of(out) == kept


def test_the_manifest_of_the_first_release_is_one_of_samples():
    first = Path(__file__).parents[1] / "fixtures/samples_v1/samples"
    assert json.loads((first / "_manifest.json").read_text()).keys() >= manifest.OUTPUT.keys
    outputs.refuse_foreign(str(first), manifest.OUTPUT)
