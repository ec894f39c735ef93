"""A build with a validation part: judged and published as a whole, told apart from parts of other builds."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from jobs import build_samples, samples_config
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SLOTS, SamplesConfig
from schemas import manifest
from schemas.hashing import bucket
from schemas.manifest import SampleSet
from storage import publishing
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import RawLogs, random_logs, write_logs

SETTINGS = SamplesConfig(
    buckets={f.name: 1000 for f in FIELDS},
    impressions_per_row=5,
    rows_per_row_group=7,
    raw_bytes_per_file=40_000,
    valid_share=0.2,
)
LOGS = random_logs(seed=7, num_contexts=150)


def is_valid(context_id: str, share: float = 0.2) -> bool:
    """The side of the cut, by the Python implementation of the same hash."""
    slot = bucket("validation", int(context_id, 16), SLOTS + 1, SETTINGS.hash_seed) - 1
    return slot < share * SLOTS


ORPHANS = [line for line in LOGS.skeleton if is_valid(line.split(",")[3])]


def run(
    spark, logs: RawLogs, out: Path, valid: Path | str, overwrite: bool = False, **settings: float
) -> tuple[manifest.Manifest, manifest.Manifest]:
    """The manifests of both parts of some logs."""
    out.parent.mkdir(exist_ok=True)
    files = raw_files.find_logs(*write_logs(out.parent, logs))
    build_samples.run(
        spark, TextLogs(files), ALI_CCP, SETTINGS.model_copy(update=settings), str(out), overwrite, str(valid)
    )
    return manifest.read(str(out)), manifest.read(str(valid))


def some_lost(share_lost: float) -> tuple[RawLogs, list[str]]:
    """The logs without the common records of a share of the validation contexts; the orphaned lines."""
    common = [line for line in LOGS.common if not is_valid(line.split(",")[0], 0.2 * share_lost)]
    left = {line.split(",")[0] for line in common}
    orphans = [line for line in LOGS.skeleton if line.split(",")[3] not in left]
    return RawLogs(skeleton=LOGS.skeleton, common=common), orphans


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".csv")


def test_broken_lines_of_validation_contexts_stop_the_job_too(spark, tmp_path):
    logs, orphans = some_lost(1.0)
    with pytest.raises(InputError) as error:
        run(spark, logs, tmp_path / "train", tmp_path / "valid")
    assert f"{len(orphans)} of {len(LOGS.skeleton)} lines are broken" in str(error.value)
    assert f"{len(orphans)} impressions lack their common record" in str(error.value)
    assert names(tmp_path) == ["_rejected"]
    kept = pq.read_table(sorted(map(str, (tmp_path / "_rejected/train").iterdir())))
    assert sorted(kept["text"].to_pylist()) == sorted(line.encode() for line in orphans)


def test_broken_lines_of_validation_contexts_are_told_and_kept(spark, tmp_path, capsys):
    logs, orphans = some_lost(0.5)
    train, valid = run(spark, logs, tmp_path / "train", tmp_path / "valid", max_broken_share=0.5)
    assert orphans and valid["counts"]["impressions"]
    assert f"quarantined {len(orphans):,}: no_common_record" in capsys.readouterr().out
    assert (train["quarantine"], valid["quarantine"]) == ({"no_common_record": len(orphans)}, {})
    kept = pq.read_table(sorted(map(str, (tmp_path / "train/_quarantine").iterdir())))
    assert sorted(kept["text"].to_pylist()) == sorted(line.encode() for line in orphans)
    assert not (tmp_path / "valid/_quarantine").exists()


@pytest.mark.parametrize(("share", "empty"), [(1e-6, "valid"), (0.2, "valid"), (1 - 1e-6, "train")])
def test_an_empty_part_is_not_published(spark, tmp_path, share: float, empty: str):
    logs = LOGS if share != 0.2 else some_lost(1.0)[0]
    with pytest.raises(InputError, match=rf"/{empty} would hold none of the \d+ impressions") as error:
        run(spark, logs, tmp_path / "train", tmp_path / "valid", valid_share=share, max_broken_share=0.5)
    assert "samples.valid_share" in str(error.value)
    assert set(names(tmp_path)) <= {"_rejected"}


@pytest.mark.parametrize("share", [1e-7, 4.9e-7, 0.9999999])
def test_a_share_that_leaves_a_side_without_contexts_is_no_share(tmp_path, share: float):
    (tmp_path / "c.yaml").write_text(f"samples: {{valid_share: {share:.10f}}}")
    with pytest.raises(InputError, match="valid_share.*a share is 0 or one from 1e-06 to 0.999999"):
        samples_config.load_samples_config(str(tmp_path / "c.yaml"), ALI_CCP)


@pytest.mark.parametrize("valid", ["samples/valid", "samples", "samples/", "."])
def test_a_part_inside_the_other_is_refused_before_any_work(spark, tmp_path, valid: str):
    with pytest.raises(InputError, match="expected a folder outside the other output"):
        run(spark, LOGS, tmp_path / "samples", f"{tmp_path}/{valid}", overwrite=True)
    assert names(tmp_path) == []


def test_where_one_part_cannot_be_published_neither_is(spark, tmp_path, monkeypatch):
    before = run(spark, LOGS, tmp_path / "train", tmp_path / "valid")
    check = build_samples.check

    def check_later(*arguments):
        (tmp_path / "train/thesis.txt").touch()
        check(*arguments)

    monkeypatch.setattr(build_samples, "check", check_later)
    with pytest.raises(InputError, match=r"train: .*found a folder with thesis\.txt in it"):
        run(spark, LOGS, tmp_path / "train", tmp_path / "valid", overwrite=True, valid_share=0.5)
    assert before == tuple(manifest.read(str(tmp_path / part)) for part in ("train", "valid"))
    assert names(tmp_path) == ["train", "valid"]


def require_apart(train: Path, valid: Path) -> None:
    manifest.require_apart(SampleSet.read(str(train)), SampleSet.read(str(valid)))


def test_the_parts_of_two_builds_are_not_used_together(spark, tmp_path, monkeypatch):
    """A job is killed between its two renames: a new validation part stands beside an old training part."""
    parts = tmp_path / "train", tmp_path / "valid"
    run(spark, LOGS, *parts)
    require_apart(*parts)
    publish = publishing.publish

    def be_killed(staged: str, folder: str, overwrite: bool) -> None:
        if folder == str(parts[0]):
            raise KeyboardInterrupt
        publish(staged, folder, overwrite)

    monkeypatch.setattr(publishing, "publish", be_killed)
    with pytest.raises(KeyboardInterrupt):
        run(spark, LOGS, *parts, overwrite=True, valid_share=0.5)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"valid: holds a share of 0\.5 .*train keeps out a share of 0\.2"):
        require_apart(*parts)
    run(spark, LOGS, *parts, overwrite=True, valid_share=0.5)
    require_apart(*parts)


def test_validation_parts_go_with_training_samples_of_other_logs_and_sets_without_a_cut(spark, tmp_path):
    train, valid = tmp_path / "a/train", tmp_path / "a/valid"
    run(spark, LOGS, train, valid)
    run(spark, LOGS, tmp_path / "b/train", tmp_path / "b/valid", valid_share=0.5)
    require_apart(train, tmp_path / "b/valid")
    require_apart(train, tmp_path / "b/train")
    require_apart(train, train)
    old = Path(__file__).parents[1] / "fixtures/samples_v1/samples"
    require_apart(old, old)
