"""Several sample sets read as one: what they hold together, and a training that can't tell the difference."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import InputError
from esmm.checkpoints.files import newest_checkpoint
from esmm.data.loader import Loader
from esmm.training_run import TrainOptions, train
from schemas import joined, manifest, samples
from schemas.manifest import Manifest, SampleSet
from schemas.numbers import Number, Statistics
from storage import publishing
from storage.json_files import write_json
from tests.fixtures.loaders import epoch_ids
from tests.fixtures.runs import Inputs, cut_off, log_of, numbers_of
from tests.fixtures.sample_files import TEST_SCHEMA, read_rows, with_other_fields, write_samples
from tests.fixtures.workers import ONE_WORKER


def _take_apart(whole: Path, parts: list[Path]) -> None:
    """A sample set's files, a folder each."""
    made = manifest.read(str(whole))
    for entry, part in zip(made["files"], parts, strict=True):
        part.mkdir(parents=True)
        shutil.copy(whole / entry["name"], part)
        rows = [row for row in read_rows(part) for _ in row["sample_id"]]
        labels = [
            pair for row in read_rows(part) for pair in zip(row["click"], row["conversion"], strict=True)
        ]
        counts = {
            "contexts": len(read_rows(part)),
            "impressions": len(rows),
            "clicks": sum(click for click, _ in labels),
            "conversions": sum(click * conversion for click, conversion in labels),
        }
        content: dict[str, Any] = {**made, "files": [entry], "counts": {**made["counts"], **counts}}
        write_json(str(part / samples.MANIFEST_NAME), content)
        (part / publishing.SUCCESS_NAME).touch()


def test_training_on_parts_is_training_on_the_whole(inputs: Inputs, tmp_path: Path) -> None:
    days = [tmp_path / "samples" / f"ds=2026-11-0{day}" for day in (1, 2)]
    _take_apart(inputs.train, days)
    apart = [str(day) for day in days]
    settings = "train.keep_checkpoints=9"
    train(ONE_WORKER, inputs.options(tmp_path / "whole", settings))
    train(ONE_WORKER, _with_train(inputs.options(tmp_path / "apart", settings), apart))
    _assert_same_end(tmp_path / "apart", tmp_path / "whole")
    # Where a run stands in its samples is the same for its folders in any order.
    cut_off(tmp_path / "apart", 15)
    resumed = inputs.options(tmp_path / "apart", settings, "--resume")
    train(ONE_WORKER, _with_train(resumed, apart[::-1]))
    _assert_same_end(tmp_path / "apart", tmp_path / "whole")


def _assert_same_end(run: Path, other: Path) -> None:
    assert log_of(run) == log_of(other)
    found, expected = (numbers_of(newest_checkpoint(one)) for one in (run, other))
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def _with_train(options: TrainOptions, folders: list[str]) -> TrainOptions:
    return replace(options, train=folders)


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    folders = [tmp_path / "samples" / f"ds={day}" for day in range(3)]
    for seed, folder in enumerate(folders):
        write_samples(folder, num_rows=12 + seed, seed=seed)
    return [str(folder) for folder in folders]


def test_an_epoch_has_every_impression_of_every_set(days: list[str]) -> None:
    found = joined.read(days)
    loader = Loader(found.folder, manifest=found.manifest, batch_size=16, shuffle_window=8, with_keys=True)
    expected = [sample for day in days for row in read_rows(day) for sample in row["sample_id"]]
    assert sorted(sample for batch in epoch_ids(loader) for sample in batch) == sorted(expected)
    assert found.manifest["counts"]["impressions"] == len(expected)


def test_a_file_that_is_gone_is_named_with_its_set(days: list[str]) -> None:
    (Path(days[1]) / "part-00001.parquet").unlink()
    found = joined.read(days)
    with pytest.raises(InputError, match=r"samples/ds=1/part-00001.parquet: file not found"):
        Loader(found.folder, manifest=found.manifest, batch_size=16)


def test_sets_that_do_not_belong_together_are_refused(days: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ds=1: given 2 times, expected each folder of samples once"):
        joined.read([days[1], days[0], days[1] + "/"])
    write_samples(tmp_path / "other", schema=with_other_fields())
    with pytest.raises(InputError, match=r"other: its samples do not fit those of .*ds=0"):
        joined.read([days[0], str(tmp_path / "other")])
    with pytest.raises(InputError, match="expected a folder of samples, found nothing"):
        joined.read([days[0], str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["samples/ds=1", "samples/ds=2"], "samples"),
        (["a", "b"], "."),
        (["/a", "/b/c"], "/"),
        (["/data/x/a", "/data/y/b"], "/data"),
        (["hdfs://host:8020/s/a", "hdfs://host:8020/s/b"], "hdfs://host:8020/s"),
    ],
)
def test_the_folder_that_sets_have_in_common(folders: list[str], expected: str) -> None:
    assert joined.common_folder(folders) == expected


def test_sets_on_different_file_systems_are_refused() -> None:
    with pytest.raises(InputError, match="expected folders of samples below one folder"):
        joined.common_folder(["hdfs://host:8020/a", "/b"])


@given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=8), min_size=1, max_size=5))
def test_statistics_of_numbers_are_those_of_all_values(parts: list[list[float]]) -> None:
    found = joined.pooled([_statistics(part) for part in parts])
    everything = [value for part in parts for value in part]
    assert (found["values"], found["missing"]) == (len(everything), len(parts))
    if everything:
        expected = np.mean(everything), np.std(everything), min(everything), max(everything)
        assert [found[name] for name in ("mean", "std", "min", "max")] == pytest.approx(expected, abs=1e-6)  # type: ignore[literal-required]


def _statistics(values: list[float]) -> Statistics:
    known = values or [0.0]
    mean, std = float(np.mean(known)), float(np.std(known))
    low, high = min(known), max(known)
    return Statistics(values=len(values), missing=1, mean=mean, std=std, min=low, max=high, bounds=[])


def test_numbers_are_pooled_by_name(tmp_path: Path) -> None:
    schema = replace(TEST_SCHEMA, numbers=(Number("price", "impression"), Number("age", "user")))
    sets: list[Manifest] = [
        write_samples(tmp_path / f"ds={seed}", num_rows=9, seed=seed, schema=schema) for seed in (1, 2)
    ]
    found = joined.read([str(tmp_path / "ds=1"), str(tmp_path / "ds=2")])
    assert isinstance(found, SampleSet)
    assert found.manifest["numbers"] == {
        name: joined.pooled([made["numbers"][name] for made in sets]) for name in ("price", "age")
    }
