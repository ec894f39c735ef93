"""The profile of samples with an id table: rare ids, exact figures beside the estimates, other tables."""

from collections import Counter
from pathlib import Path

import pytest

from cli.errors import InputError
from jobs import build_ids, build_samples, profile_samples
from jobs.profiling.config import ProfileConfig
from jobs.profiling.text import format_profile
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import ids
from schemas.profile import Profile
from tests.fixtures import few_ids
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import RawLogs, write_logs
from tests.fixtures.sample_files import write_samples

BUCKETS = {f.name: 400 for f in FIELDS}
MIN_COUNT, VOCABULARY = {"205": 6, "110_14": 8}, ("121", "853")
WITH_TABLE = SamplesConfig(buckets=BUCKETS, min_count=MIN_COUNT, vocabulary=VOCABULARY)
HASHED = SamplesConfig(buckets=BUCKETS)


@pytest.fixture(scope="module")
def logs() -> RawLogs:
    return few_ids.repeating_logs(seed=31, num_contexts=80)


@pytest.fixture(scope="module")
def known(logs: RawLogs) -> dict[str, dict[int, int]]:
    return few_ids.known_buckets(few_ids.count_ids(logs), BUCKETS, 0, MIN_COUNT, VOCABULARY)


@pytest.fixture(scope="module")
def made(spark, logs: RawLogs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders: a table and samples with it, a mere report and samples without a table."""
    folder = tmp_path_factory.mktemp("made")
    files = raw_files.find_logs(*write_logs(folder, logs))
    paths = {name: str(folder / name) for name in ("table", "with_table", "report", "hashed")}
    for table, out, config in (("table", "with_table", WITH_TABLE), ("report", "hashed", HASHED)):
        build_ids.run(spark, TextLogs(files), ALI_CCP, config, paths[table], overwrite=False)
        used = paths[table] if config is WITH_TABLE else None
        build_samples.run(
            spark, TextLogs(files), ALI_CCP, config, paths[out], overwrite=False, ids_folder=used
        )
    return paths


@pytest.fixture(scope="module")
def profile(spark, made: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """Of the samples with a table, which they name themselves."""
    out = tmp_path_factory.mktemp("profile") / "p.json"
    inputs = profile_samples.read_inputs(made["with_table"])
    return profile_samples.run(spark, inputs, ProfileConfig(least_buckets=4), str(out))


def impression_counts(logs: RawLogs, name: str) -> Counter:
    """Occurrences of ids of a field of the skeleton."""
    return few_ids.count_ids(RawLogs(skeleton=logs.skeleton))[name]


@pytest.mark.parametrize("name", ["205", "853"])
def test_rare_ids_share_a_bucket_that_is_not_counted(profile: Profile, logs, known, name: str) -> None:
    field, counts = profile["fields"][name], impression_counts(logs, name)
    rare = sum(n for i, n in counts.items() if i not in known[name])
    assert field["mode"] == ("min_count" if name in MIN_COUNT else "vocabulary")
    assert field["rare_tokens"] == pytest.approx(rare / sum(counts.values()))
    used = {known[name][i] for i in counts if i in known[name]}
    assert field["used_buckets"] == len(used)
    assert field["fill"] == len(used) / (BUCKETS[name] - 2)
    assert (rare > 0) is (name == "205")


def test_vocabulary_is_exact_and_gets_a_bucket_per_id(profile: Profile, known) -> None:
    field = profile["fields"]["853"]
    assert field["distinct_ids"] == field["measured"]["kept_ids"] == len(known["853"])
    assert field["collision_rate"] == field["distinct_ids_error"] == 0
    assert field["proposed_buckets"] // 2 < len(known["853"]) + 2 <= field["proposed_buckets"]


def test_measured_figures_stand_beside_the_estimates(profile: Profile, made) -> None:
    report = ids.read(made["table"])["fields"]
    for name, field in profile["fields"].items():
        expected = {key: report[name][key] for key in ("ids", "kept_ids", "collision_rate")}
        assert field["measured"] == expected
        if field["owner"] == "impressions":  # the table also counts contexts without impressions
            assert field["distinct_ids"] == pytest.approx(expected["kept_ids"], rel=0.1, abs=3)
    text = format_profile(profile)
    assert max(map(len, text.splitlines())) <= 110 or "/" in text
    assert "min_count" in text and "vocabulary" in text


def test_report_without_a_table_serves_hashed_samples(spark, made, tmp_path: Path) -> None:
    inputs = profile_samples.read_inputs(made["hashed"], ids=made["report"])
    profile = profile_samples.run(spark, inputs, ProfileConfig(), str(tmp_path / "p.json"))
    for field in profile["fields"].values():
        assert field["mode"] == "hash" and "rare_tokens" not in field
        assert field["measured"]["ids"] == field["measured"]["kept_ids"]


def test_collisions_with_other_buckets_are_not_shown(made) -> None:
    inputs = profile_samples.read_inputs(made["with_table"])
    report = inputs.id_table["fields"]["205"]
    assert profile_samples.content.measured(report, BUCKETS["205"])["collision_rate"] is not None
    assert profile_samples.content.measured(report, 999)["collision_rate"] is None


def test_other_id_tables_are_refused(made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the id table of .*hashed.*id table none; found"):
        profile_samples.read_inputs(made["hashed"], ids=made["table"])
    with pytest.raises(InputError, match="not the id table of .*with_table.*; found"):
        profile_samples.read_inputs(made["with_table"], ids=made["report"])
    write_samples(tmp_path / "seeded", num_rows=4, hash_seed=5)
    with pytest.raises(InputError, match="has hash_seed 5"):
        profile_samples.read_inputs(str(tmp_path / "seeded"), ids=made["report"])


def test_table_that_was_moved_is_asked_for(made, tmp_path: Path) -> None:
    moved = Path(made["table"]).rename(tmp_path / "moved")
    try:
        with pytest.raises(InputError, match="with_table names it: pass --ids where it was moved"):
            profile_samples.read_inputs(made["with_table"])
        assert profile_samples.read_inputs(made["with_table"], ids=str(moved)).ids == str(moved)
    finally:
        moved.rename(made["table"])
