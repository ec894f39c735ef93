"""Samples with fields that a run does not know: it predicts as without; what goes on from it begins there."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from esmm.checkpoints.input_axes import Inputs as InputAxes
from esmm.model.models import network_class
from esmm.model_config import ModelConfig
from esmm.training_run import train
from schemas import manifest, samples
from schemas.fields import Field
from schemas.manifest import Manifest
from schemas.numbers import Number
from schemas.schema import Schema
from storage.json_files import write_json
from tests.esmm.test_all_models import NAMES
from tests.fixtures.runs import Inputs, predictions_of
from tests.fixtures.sample_files import TEST_SCHEMA, write_samples
from tests.fixtures.workers import ONE_WORKER

NEW = (Field("season", "context", 40), Field("visited", "user", 60, multi=True))
WIDER = replace(TEST_SCHEMA, fields=(*TEST_SCHEMA.fields[:5], *NEW, *TEST_SCHEMA.fields[5:]))
STILL = ("optimizer.sparse.learning_rate=1e-30", "optimizer.dense.learning_rate=1e-30", "train.epochs=1")


def without_new_fields(wide: Path, folder: Path) -> Path:
    """The same samples, as a build that knows nothing of NEW would have written them."""
    shutil.copytree(wide, folder)
    made = manifest.read(str(folder))
    entries = []
    for entry in made["files"]:
        path = folder / entry["name"]
        whole = pq.ParquetFile(path)
        names = samples.arrow_schema(TEST_SCHEMA).names
        groups = [whole.read_row_group(n, columns=names) for n in range(whole.num_row_groups)]
        with pq.ParquetWriter(path, groups[0].schema) as writer:
            for group in groups:
                writer.write_table(group)
        entries.append({**entry, "bytes": path.stat().st_size})
    content: Manifest = {**made, "schema": TEST_SCHEMA.to_dict(), "buckets": TEST_SCHEMA.buckets}
    content["files"] = entries
    content["fingerprint"] = samples.fingerprint(TEST_SCHEMA, made["hash_seed"])
    write_json(str(folder / samples.MANIFEST_NAME), dict(content))
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wide")
    for number, part in enumerate(("train", "valid")):
        write_samples(folder / part, num_rows=30, seed=number, schema=WIDER)
    return {part: folder / part for part in ("train", "valid")}


def probabilities(run: Path, of: Path, out: Path, *more: str) -> np.ndarray:
    found = predictions_of(run, of, out, *more).sort_by("sample_id")
    return np.stack([found[name] for name in ("p_ctr", "p_cvr", "p_ctcvr")])


@pytest.mark.parametrize(
    "settings",
    [
        ("model.name=esmm", "model.dots=true"),
        ("model.name=esmm_ns", "model.cross_layers=2"),
        ("model.name=ple", "model.cross_layers=1"),
        ("model.name=mmoe", "model.batch_norm=true"),
    ],
)
def test_a_run_with_new_fields_begins_with_what_the_old_one_predicts(
    inputs: Inputs, wide: dict[str, Path], tmp_path: Path, settings: tuple[str, ...]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    train(ONE_WORKER, inputs.options(old, *settings, "train.epochs=1"))
    narrow = without_new_fields(wide["valid"], tmp_path / "narrow")
    expected = probabilities(old, narrow, tmp_path / "expected")
    np.testing.assert_array_equal(probabilities(old, wide["valid"], tmp_path / "found"), expected)
    train(ONE_WORKER, inputs.options(new, *settings, *STILL, "--warm-start", str(old), **wide))
    if "batch_norm" not in settings[-1]:  # whose running moments go on
        begun = probabilities(new, wide["valid"], tmp_path / "begun")
        np.testing.assert_allclose(begun, expected, rtol=1e-4, atol=1e-7)


def test_what_is_kept_beside_predictions_has_to_be_known_to_the_run(
    inputs: Inputs, wide: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = tmp_path / "run"
    train(ONE_WORKER, inputs.options(run, "train.epochs=1"))
    assert len(probabilities(run, wide["valid"], tmp_path / "one", "--keep", "301")[0])
    assert "fields that are not read: season, visited" in caplog.text
    with pytest.raises(InputError, match="season"):
        predictions_of(run, wide["valid"], tmp_path / "two", "--keep", "season")


def test_other_samples_are_still_refused(inputs: Inputs, wide: dict[str, Path], tmp_path: Path) -> None:
    """Fewer fields than the run knows; more fields, but one of those it knows with other buckets."""
    run = tmp_path / "run"
    train(ONE_WORKER, inputs.options(run, "train.epochs=1", **wide))
    with pytest.raises(InputError, match="fields removed: .*season"):
        predictions_of(run, inputs.valid, tmp_path / "out")
    more = replace(WIDER, fields=(*WIDER.fields, Field("hour", "context", 24)))
    write_samples(tmp_path / "more", num_rows=10, schema=more.with_buckets({"season": 41}))
    with pytest.raises(InputError, match="field season: buckets 40 -> 41"):
        predictions_of(run, tmp_path / "more", tmp_path / "out")
    sides = [replace(field, side="item") if field.name == "visited" else field for field in more.fields]
    write_samples(tmp_path / "moved", num_rows=10, schema=replace(more, fields=tuple(sides)))
    with pytest.raises(InputError, match="field visited: side user -> item"):
        predictions_of(run, tmp_path / "moved", tmp_path / "out")


NUMBERS = (Number("price", "item"), Number("age", "user"), Number("visits", "user", quantiles=4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schemas", [(TEST_SCHEMA, WIDER), (TEST_SCHEMA, replace(WIDER, numbers=NUMBERS))])
def test_all_that_reads_the_input_is_known_to_do_so(name: str, schemas: tuple[Schema, Schema]) -> None:
    """Axes have as many names as places; and those without are as long for one schema as for the other."""
    plain = {"name": name, "embedding_dim": 3, "towers": [4, 2]}
    for more in ({"cross_layers": 3, "input_norm": True}, {"dots": True, "wide": True, "batch_norm": True}):
        try:
            config = ModelConfig(**plain, **more)
        except ValueError:  # a model that has no such part
            continue
        shapes = [
            {
                tensor: (value.shape, InputAxes.of(schema, 3).axes(tensor))
                for tensor, value in network_class(name)(config, schema, ONE_WORKER).state_dict().items()
                if "numbers.sides." not in tensor
            }
            for schema in schemas
        ]
        for tensor, (shape, axes) in shapes[0].items():
            other_shape, other_axes = shapes[1][tensor]
            for size, labels in zip(shape, axes or [None] * len(shape), strict=True):
                assert labels is None or len(labels) == size == len(set(labels)), tensor
            for sizes, labels in zip(
                zip(shape, other_shape, strict=True), other_axes or [None] * len(shape), strict=True
            ):
                assert labels is not None or len(set(sizes)) == 1, tensor
