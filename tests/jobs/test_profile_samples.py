"""The whole job on real Spark, against plain Python on the raw lines; gates; what is refused."""

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from cli.version import WRITTEN_BY
from jobs import build_samples, profile_samples
from jobs.profiling import spark_counts
from jobs.profiling.config import ProfileConfig, load_profile_config
from jobs.profiling.estimators import stability_index
from jobs.profiling.gates import describe, judge, require_kept
from jobs.profiling.tally import BUCKET, RANKING, THEIRS
from jobs.profiling.tasks import half_of
from jobs.profiling.text import format_profile
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import manifest
from schemas.profile import MEANING, Profile
from storage.json_files import write_json
from tests.fixtures import plain_profile
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS
from tests.fixtures.raw_lines import RawLogs, expected_impressions, random_logs, write_logs
from tests.fixtures.sample_files import write_samples

# So few that ids collide, buckets repeat and some fields are small enough for a bin per bucket.
BUCKETS = {f.name: 15 if f.name in ("124", "216", "301") else 300 for f in FIELDS}
SETTINGS = SamplesConfig(
    buckets=BUCKETS, impressions_per_row=5, rows_per_row_group=7, raw_bytes_per_file=40_000
)
UNGATED = ProfileConfig()


def build(spark, folder: Path, logs: RawLogs) -> str:
    folder.mkdir()
    files = raw_files.find_logs(*write_logs(folder, logs))
    build_samples.run(spark, TextLogs(files), ALI_CCP, SETTINGS, str(folder / "samples"), overwrite=False)
    return str(folder / "samples")


def profiled(
    spark,
    samples: str,
    out: Path,
    against: str | None = None,
    ids: str | None = None,
    settings: ProfileConfig = UNGATED,
) -> Profile:
    inputs = profile_samples.read_inputs(samples, against, ids)
    return profile_samples.run(spark, inputs, settings, str(out))


def rewrite(path: Path, column: str, change: Callable[[Any], Any]) -> None:
    """Change every row of one column of a sample file."""
    table = pq.read_table(path)
    position = table.schema.get_field_index(column)
    field = table.schema.field(position)
    changed = pa.array([change(row) for row in table[column].to_pylist()], field.type)
    pq.write_table(table.set_column(position, field, changed), path)


@pytest.fixture(scope="module")
def sets(spark, tmp_path_factory: pytest.TempPathFactory):
    """Two sample sets and their impressions read from the raw lines; the first has one broken line."""
    root = tmp_path_factory.mktemp("sets")
    found = []
    for name, seed, num_contexts in (("ours", 5, 90), ("theirs", 6, 120)):
        logs = random_logs(seed, num_contexts)
        impressions = expected_impressions(logs, BUCKETS, hash_seed=0)
        if name == "ours":
            logs.skeleton.append(f"900001,0,1,{logs.common[0].split(',')[0]},0,")
        found.append((build(spark, root / name, logs), impressions))
    return found


@pytest.fixture(scope="module")
def profile(spark, sets, tmp_path_factory: pytest.TempPathFactory) -> Profile:
    out = tmp_path_factory.mktemp("profile") / "deep" / "profile.json"
    profile = profiled(spark, sets[0][0], out, against=sets[1][0])
    assert json.loads(out.read_text()) == profile and profile["written_by"] == WRITTEN_BY
    return profile


def test_counts_and_rates(profile: Profile, sets) -> None:
    impressions = sets[0][1].values()
    clicks = sum(i["click"] for i in impressions)
    conversions = sum(i["conversion"] for i in impressions)
    sizes = Counter(i["context_id"] for i in impressions)
    rows = sum(-(-size // SETTINGS.impressions_per_row) for size in sizes.values())
    assert rows > len(sizes)
    assert profile["counts"] == {
        "rows": rows,
        "contexts": len(sizes),
        "impressions": len(impressions),
        "clicks": clicks,
        "conversions": conversions,
    }
    assert profile["rates"] == {
        "ctr": clicks / len(impressions),
        "cvr": conversions / clicks,
        "ctcvr": conversions / len(impressions),
    }
    per_context = profile["impressions_per_context"]
    assert per_context["mean"] == len(impressions) / len(sizes)
    assert per_context["max"] == max(sizes.values())


def test_quarantine_comes_from_the_manifest(profile: Profile, sets) -> None:
    lines = len(sets[0][1]) + 1
    assert profile["quarantine"] == {"lines": {"conversion_without_click": 1}, "share": 1 / lines}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_agrees_with_plain_python(profile: Profile, sets, field) -> None:
    found, expected = profile["fields"][field.name], plain_profile.plain_field(sets[0][1], field)
    assert found["owner"] == ("impressions" if field.per_impression else "contexts")
    assert found["coverage"] == pytest.approx(expected["coverage"])
    if not field.per_impression:
        assert found["coverage_contexts"] == pytest.approx(expected["coverage_contexts"])
    assert found["tokens"] == expected["tokens"]
    assert found["used_buckets"] == expected["used"]
    assert found["fill"] == expected["used"] / (BUCKETS[field.name] - 1)
    assert ("lengths" in found, "weights" in found) == (field.multi, field.weighted)
    if field.multi:
        for key in ("mean", "p50", "p99", "max"):
            assert found["lengths"][key] == pytest.approx(expected[key]), key
    if field.weighted:
        weights = tuple(found["weights"][key] for key in ("min", "mean", "max"))
        assert weights == pytest.approx(expected["weights"], rel=1e-6)


def test_saturated_field_has_no_estimates_but_a_proposal(profile: Profile) -> None:
    field = profile["fields"]["216"]
    assert field["fill"] == 1
    assert field["distinct_ids"] is field["distinct_ids_error"] is field["collision_rate"] is None
    assert field["proposed_buckets"] == UNGATED.least_buckets
    assert re.search(r"^216 .* saturated .* >= 4,096$", format_profile(profile), re.MULTILINE)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_drift_agrees_with_plain_python(profile: Profile, sets, field) -> None:
    (_, ours), (_, others) = sets
    drift = profile["fields"][field.name]["drift"]
    mine, seen = (plain_profile.tokens_of(side, field)[0] for side in (ours, others))
    unseen = {bucket: n for bucket, n in mine.items() if bucket not in seen}
    assert drift["unseen_buckets"] == pytest.approx(len(unseen) / len(mine))
    assert drift["unseen_tokens"] == pytest.approx(sum(unseen.values()) / sum(mine.values()))
    expected = plain_profile.plain_psi(ours, others, field, spark_counts.BINS)
    assert drift["psi"] == pytest.approx(expected)


def test_both_ways_of_binning_are_tried(sets) -> None:
    odd, _ = plain_profile.halves_of(sets[1][1])
    used = [len(plain_profile.tokens_of(odd, field)[0]) for field in FIELDS]
    assert min(used) <= spark_counts.BINS < max(used)


def test_rates_are_compared(profile: Profile, sets) -> None:
    against, others = profile["against"], sets[1][1].values()
    assert against["counts"]["impressions"] == len(others)
    assert against["rates"]["ctr"] == sum(i["click"] for i in others) / len(others)
    for rate in ("ctr", "cvr", "ctcvr"):
        difference = profile["rates"][rate] - against["rates"][rate]
        assert against["rate_differences"][rate] == difference


def test_table_fits_and_names_every_field(profile: Profile) -> None:
    lines = format_profile(profile).splitlines()
    assert max(map(len, lines)) <= 110
    for field in FIELDS:
        assert sum(line.split(" ")[0] == field.name for line in lines) == 2 + field.weighted


def test_figures_are_explained(profile: Profile) -> None:
    keys = {key for field in profile["fields"].values() for key in field} - {"buckets", "drift"}
    assert keys <= set(MEANING)


def test_drift_is_found_where_ids_changed(spark, tmp_path: Path) -> None:
    """The items of one set become others: field 205 shows it, all else is as in the other set."""
    for name in ("before", "after"):
        write_samples(tmp_path / name, num_rows=300, seed=1, num_files=1)
    path = tmp_path / "after" / "part-00000.parquet"
    rewrite(path, "item_205", lambda row: [min(i, 20) for i in row])
    before = str(tmp_path / "before")
    profile = profiled(spark, str(tmp_path / "after"), tmp_path / "p.json", against=before)
    drift = {name: field["drift"] for name, field in profile["fields"].items()}
    assert {found["unseen_tokens"] for found in drift.values()} == {0}
    assert set(profile["against"]["rate_differences"].values()) == {0}
    psi = {name: found["psi"] for name, found in drift.items()}
    assert psi.pop("205") > 1
    assert max(psi.values()) < 0.4


def drifted(spark, folder: Path, settings: ProfileConfig) -> Profile:
    """The profile of the samples `after` in a folder against those `before`."""
    return profiled(
        spark, str(folder / "after"), folder / "p.json", against=str(folder / "before"), settings=settings
    )


@pytest.mark.parametrize("step", [1, 2, 16, 1000])
def test_drift_is_found_whatever_the_context_ids_are(spark, tmp_path: Path, step: int) -> None:
    """Counters and multiples, where a digit of the id would put all contexts into one half."""
    for name in ("before", "after"):
        write_samples(tmp_path / name, num_rows=300, seed=1, num_files=1)
        path = tmp_path / name / "part-00000.parquet"
        numbers = itertools.count(0, step)
        rewrite(path, "context_id", lambda _: f"{next(numbers):016x}")  # noqa: B023
    rewrite(tmp_path / "after" / "part-00000.parquet", "item_205", lambda row: [7 if i else 0 for i in row])
    settings = gated(max_psi={"205": 0.1, "206": 0.4})
    profile = drifted(spark, tmp_path, settings)
    assert profile["fields"]["205"]["drift"]["psi"] > 1
    assert [(broken["gate"], broken["field"]) for broken in profile["gates"]["broken"]] == [
        ("max_psi", "205")
    ]


@pytest.mark.parametrize("half", [RANKING, THEIRS])
def test_without_one_half_there_is_no_psi(spark, tmp_path: Path, half: int) -> None:
    """One context alone is in one half; a field that has ids has no PSI then, and its gate is broken."""
    alone = next(text for i in range(99) if half_of(text := f"{i:016x}") == half)
    for name in ("before", "after"):
        write_samples(tmp_path / name, num_rows=1, num_files=1, missing=0.0)
        rewrite(tmp_path / name / "part-00000.parquet", "context_id", lambda _: alone)
    settings = gated(max_psi={"any": 10})
    profile = drifted(spark, tmp_path, settings)
    broken = {gate["field"]: gate["found"] for gate in profile["gates"]["broken"]}
    assert broken["205"] is None and profile["fields"]["205"]["drift"]["psi"] is None
    assert "205: found no value" in "".join(map(describe, profile["gates"]["broken"]))


def test_halves_are_those_of_spark_and_about_equal(spark) -> None:
    ids = [f"{number:016x}" for step in (1, 2, 16, 1 << 40) for number in range(0, 500 * step, step)]
    expression = "xxhash64('profile', value) & 1"
    by_spark = spark.createDataFrame([(i,) for i in ids], "value string").selectExpr(expression).collect()
    ranking = [half_of(i) == RANKING for i in ids]
    assert [bool(row[0]) for row in by_spark] == ranking
    for part in np.split(np.array(ranking), 4):
        assert 0.4 < part.mean() < 0.6


def test_rare_ids_alone_are_no_drift(spark) -> None:
    """Three draws of one origin, most ids seen once or twice: its ranks, used on itself, would say drift."""
    rng = np.random.default_rng(8)
    rates = 4000 * rng.pareto(1.5, 5000) / 10_000
    draws = rng.poisson(rates / rates.sum() * 6000, (3, 5000))
    assert np.mean(draws[1][draws[1] > 0] <= 2) > 0.6
    columns = "kind byte, field byte, value long, num long, ours long, ranking long, theirs long"

    def index(ours, ranking, theirs) -> float:
        counts = np.stack([ours, ranking, theirs], axis=1)
        rows = [(BUCKET, 9, 1 + i, 1, *map(int, row)) for i, row in enumerate(counts) if row.any()]
        bins = spark_counts.binned(spark.createDataFrame(rows, columns), few_used=[])[9]
        assert len(bins) > 5
        return stability_index([a for a, _ in bins], [b for _, b in bins])

    assert index(*draws) < 0.02
    assert index(draws[0], draws[1], draws[1]) > 0.1


def test_duplicate_sample_ids_are_counted_over_all_files(spark, tmp_path: Path) -> None:
    write_samples(tmp_path / "set", num_rows=40, seed=2, num_files=2)
    ids = []
    for part in (0, 1):
        path = tmp_path / "set" / f"part-0000{part}.parquet"
        rewrite(path, "sample_id", lambda row: [i // 2 if i % 10 == 0 else i for i in row])
        ids += [i for row in pq.read_table(path)["sample_id"].to_pylist() for i in row]
    profile = profiled(spark, str(tmp_path / "set"), tmp_path / "p.json")
    assert profile["duplicate_sample_ids"] == len(ids) - len(set(ids)) > 3
    assert [gate["gate"] for gate in profile["gates"]["broken"]] == ["max_duplicate_sample_ids"]


def test_against_several_days_is_against_all_of_their_logs(spark, sets, tmp_path: Path) -> None:
    days = [random_logs(seed, 40) for seed in (7, 8)]
    parts = [build(spark, tmp_path / f"ds={number}", logs) for number, logs in enumerate(days)]
    of_both = RawLogs(
        common=[line for logs in days for line in logs.common],
        skeleton=[line for logs in days for line in logs.skeleton],
    )
    whole = build(spark, tmp_path / "whole", of_both)
    ours = sets[0][0]
    expected = profiled(spark, ours, tmp_path / "whole.json", against=whole)
    found = profiled(spark, ours, tmp_path / "days.json", against=",".join(parts))
    assert found["source"]["against"] == f"{parts[0]},{parts[1]}"
    assert {**found, "source": None} == {**expected, "source": None}


def test_samples_that_lack_everything(spark, tmp_path: Path) -> None:
    """No id of any field, no click: the values that do not exist are null, and the table stands."""
    logs = RawLogs()
    for number in range(3):
        logs.common.append(f"{number:016x},0,")
        logs.skeleton.append(f"{number + 1},0,0,{number:016x},0,")
    samples = build(spark, tmp_path / "set", logs)
    profile = profiled(spark, samples, tmp_path / "p.json", against=samples)
    assert profile["rates"] == {"ctr": 0, "cvr": None, "ctcvr": 0}
    for field in FIELDS:
        found = profile["fields"][field.name]
        assert (found["coverage"], found["tokens"], found["distinct_ids"]) == (0, 0, 0)
        assert found.get("weights") is None
        assert found["drift"] == {"psi": 0, "unseen_buckets": None, "unseen_tokens": None}
        if field.multi:
            assert found["lengths"] == {"mean": 0, "p50": 0, "p99": 0, "max": 0}
    assert "CVR -" in format_profile(profile)


def gated(**gates) -> ProfileConfig:
    return ProfileConfig.model_validate({"gates": gates})


def test_gates_that_hold(profile: Profile) -> None:
    gates = gated(
        ctr=[0.0, 1.0],
        cvr=[0.0, 1.0],
        ctcvr=[0.0, 1.0],
        min_impressions=profile["counts"]["impressions"],
        max_quarantine_share=0.1,
        min_coverage={"any": 0.1, "101": profile["fields"]["101"]["coverage"]},
        max_psi={"301": 10},
        max_unseen_share={"any": 1},
    ).gates
    report = judge(profile, gates)
    assert report == {"judged": 6 + 23 + 1 + 23, "skipped": [], "broken": []}
    require_kept(report, "samples", "profile.json")


BROKEN = {
    "ctr": ([0.9, 1.0], None),
    "cvr": ([0.0, 0.001], None),
    "ctcvr": ([0.5, 0.6], None),
    "min_impressions": (10**6, None),
    "max_quarantine_share": (0.0001, None),
    "min_coverage": ({"126": 0.99}, "126"),
    "max_collision_rate": ({"216": 0.99}, "216"),  # saturated: no value breaks the gate too
    "max_psi": ({"207": 0.0}, "207"),
    "max_unseen_share": ({"110_14": 0.0001}, "110_14"),
}


@pytest.mark.parametrize("gate", BROKEN)
def test_each_broken_gate_is_named_with_both_values(profile: Profile, gate: str) -> None:
    allowed, field = BROKEN[gate]
    report = judge(profile, gated(**{gate: allowed}).gates)
    assert [(broken["gate"], broken["field"]) for broken in report["broken"]] == [(gate, field)]
    limit = allowed[field] if field else allowed
    assert report["broken"][0]["allowed"] == limit
    with pytest.raises(InputError) as raised:
        require_kept(report, "DIR", "profile.json")
    message = str(raised.value)
    assert message.startswith("DIR: 1 of") and f"  {gate}" in message
    found = report["broken"][0]["found"]
    assert ("found no value" if found is None else f"found {found:.6g}") in message
    assert (f"{limit[0]:g} to {limit[1]:g}" if isinstance(limit, list) else f"{limit:g}") in message
    assert field is None or f"of field {field}:" in message


def test_all_broken_gates_come_in_one_message(profile: Profile) -> None:
    report = judge(profile, gated(**{gate: allowed for gate, (allowed, _) in BROKEN.items()}).gates)
    with pytest.raises(InputError) as raised:
        require_kept(report, "DIR", "profile.json")
    assert all(f"\n  {gate}" in str(raised.value) for gate in BROKEN)


def test_own_limit_of_a_field_goes_before_any(profile: Profile) -> None:
    report = judge(profile, gated(min_coverage={"any": 0.99, "126": 0.0}).gates)
    broken = {gate["field"] for gate in report["broken"]}
    assert "126" not in broken and "129" in broken


def test_drift_gates_are_skipped_without_another_set(spark, sets, tmp_path: Path) -> None:
    settings = gated(max_psi={"any": 0.0}, max_unseen_share={"any": 0.0})
    profile = profiled(spark, sets[0][0], tmp_path / "p.json", settings=settings)
    assert profile["gates"] == {"judged": 2, "skipped": ["max_psi", "max_unseen_share"], "broken": []}
    assert "against" not in profile and all("drift" not in f for f in profile["fields"].values())
    assert "not judged without --against: max_psi, max_unseen_share" in format_profile(profile)


def test_mistakes_in_the_configuration_come_together(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "profile:\n  target_collision_rate: 2\n  gates:\n    ctr: [0.5, 0.1]\n"
        "    min_coverage: {'999': 0.5}\n    max_psi: {any: -1}\n    nonsense: 1\n"
    )
    with pytest.raises(InputError) as raised:
        load_profile_config(str(path), ALI_CCP)
    for part in ("5 mistake(s)", "target_collision_rate", "gates.ctr", "unknown field 999", "nonsense"):
        assert part in str(raised.value)


@pytest.mark.parametrize("name", ["demo", "ali_ccp"])
def test_gates_of_the_configurations_are_valid(name: str) -> None:
    assert load_profile_config(f"configs/{name}.yaml", ALI_CCP).gates.min_coverage


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    write_samples(tmp_path / "one", num_rows=4)
    write_samples(tmp_path / "two", num_rows=4, hash_seed=1)
    with pytest.raises(InputError, match="hash_seed: 1 -> 0"):
        profile_samples.read_inputs(str(tmp_path / "one"), str(tmp_path / "two"))


def test_files_that_disagree_with_the_manifest_are_refused(spark, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    content = write_samples(folder, num_rows=10)
    content["counts"]["clicks"] += 1
    write_json(f"{folder}/{manifest.samples.MANIFEST_NAME}", dict(content))
    with pytest.raises(InputError, match=r"set: its manifest and its files disagree \(clicks: "):
        profiled(spark, str(folder), tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()


def test_missing_file_is_one_clear_message(spark, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_samples(folder, num_rows=10)
    (folder / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"part-00001.parquet: expected this file.*Build the samples again"):
        profiled(spark, str(folder), tmp_path / "p.json")


def test_files_are_dealt_to_tasks_in_order_and_whole() -> None:
    files = [(f"part-{n}", size) for n, size in enumerate([100, 90, 110, 100, 5, 95, 100])]
    work = spark_counts.plan_work(True, "set/", files, parallelism=3)
    assert [name for task in work for name in task.files] == [f"set/{name}" for name, _ in files]
    assert 3 <= len(work) <= 4
    large = spark_counts.plan_work(True, "set", [(str(n), 200 << 20) for n in range(9)], parallelism=2)
    assert len(large) == 9


def test_command_writes_and_prints_before_it_fails(tmp_path: Path) -> None:
    write_samples(tmp_path / "set", num_rows=10)
    config = tmp_path / "c.yaml"
    config.write_text("profile:\n  gates:\n    ctr: [0, 0.001]\n    min_coverage: {'205': 0.99}\n")
    out = tmp_path / "profile.json"
    command = [sys.executable, "-m", "jobs.profile_samples", "--samples", str(tmp_path / "set")]
    done = subprocess.run(
        [*command, "--config", str(config), "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert len(json.loads(out.read_text())["gates"]["broken"]) == 2
    assert "gates: 2 of 4 kept" in done.stdout and "853" in done.stdout
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr and "min_coverage of field 205: found 0." in done.stderr
