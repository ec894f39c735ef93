"""The id table from logs on real Spark, samples built with it, and what is refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cli.errors import InputError
from cli.version import WRITTEN_BY
from jobs import build_ids, build_samples
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from schemas import ids, manifest
from schemas.manifest import SampleSet
from schemas.schema import Schema
from tests.fixtures import few_ids, raw_lines
from tests.fixtures.ali_ccp import ALI_CCP, FIELDS

BUCKETS = {f.name: 83 + i for i, f in enumerate(FIELDS)}
MIN_COUNT = {"205": 3, "110_14": 4, "853": 9}
VOCABULARY = ("121", "301", "853")
CONFIG = SamplesConfig(
    hash_seed=9,
    buckets=BUCKETS,
    min_count=MIN_COUNT,
    vocabulary=VOCABULARY,
    raw_bytes_per_task=20_000,
    max_broken_share=0.2,
)


@pytest.fixture(scope="module")
def logs() -> raw_lines.RawLogs:
    return few_ids.repeating_logs(seed=21, num_contexts=80)


@pytest.fixture(scope="module")
def known(logs) -> dict[str, dict[int, int]]:
    return few_ids.known_buckets(few_ids.count_ids(logs), BUCKETS, 9, MIN_COUNT, VOCABULARY)


def make(spark, folder: Path, logs: raw_lines.RawLogs, config: SamplesConfig = CONFIG) -> Path:
    """Write the logs into a folder and make their id table there."""
    folder.mkdir(exist_ok=True)
    files = raw_files.find_logs(*raw_lines.write_logs(folder, logs))
    build_ids.run(spark, TextLogs(files), ALI_CCP, config, str(folder / "ids"), overwrite=False)
    return folder / "ids"


@pytest.fixture(scope="module")
def table(spark, logs, tmp_path_factory) -> Path:
    """The id table of the logs, among which are two broken lines."""
    bad = [logs.skeleton[0].replace(",", ",7", 1), "x"]
    with_bad = raw_lines.RawLogs(logs.skeleton + bad, logs.common)
    return make(spark, tmp_path_factory.mktemp("made"), with_bad)


def test_the_table_holds_the_known_ids_with_count_and_bucket(table, logs, known):
    found = pq.read_table(sorted(map(str, table.glob("*.parquet"))))
    assert found.schema.equals(ids.arrow_schema())
    counts = few_ids.count_ids(logs)
    assert found.to_pylist() == [
        {"field": name, "id": i, "count": counts[name][i], "bucket": known[name][i]}
        for name in sorted(known)
        for i in sorted(known[name])
    ]
    assert all(0 < len(known[name]) < len(counts[name]) for name in MIN_COUNT)


def test_the_report_equals_a_count_by_hand(table, logs, known):
    made = ids.read(str(table))
    assert made["written_by"] == WRITTEN_BY
    assert Schema.from_dict(made["schema"]) == ALI_CCP.with_buckets(BUCKETS)
    assert (made["lines"], made["broken_lines"]) == (len(logs.skeleton) + len(logs.common), 2)
    for name, counts in few_ids.count_ids(logs).items():
        kept = [i for i in counts if name not in known or i in known[name]]
        placed = [few_ids.expected_bucket(known, name, i, BUCKETS[name], 9) for i in kept]
        shared = sum(n for n in Counter(placed).values() if n > 1)
        free = BUCKETS[name] - (2 if name in known else 1)
        expected: dict[str, Any] = {
            "mode": "vocabulary" if name in VOCABULARY else "min_count" if name in MIN_COUNT else "hash",
            "tokens": sum(counts.values()),
            "ids": len(counts),
            "kept_ids": len(kept),
            "kept_tokens": sum(counts[i] for i in kept),
            "buckets": BUCKETS[name],
            "used_buckets": len(set(placed)),
            "bucket_fill": len(set(placed)) / free,
            "collision_rate": shared / len(kept),
        }
        found = made["fields"][name]
        assert {key: found[key] for key in expected} == pytest.approx(expected), name  # type: ignore[literal-required]
        for least, figures in found["seen_at_least"].items():
            often = [n for n in counts.values() if n >= int(least)]
            assert figures == {"ids": len(often), "tokens": sum(often)}
        if name in VOCABULARY:
            assert found["collision_rate"] == found["expected_collision_rate"] == 0
    assert any(f["collision_rate"] > 0.2 for f in made["fields"].values())


def test_only_an_id_table_is_replaced_and_only_when_told(spark, logs, tmp_path):
    place = make(spark, tmp_path, logs)
    files = TextLogs(raw_files.find_logs(*raw_lines.write_logs(tmp_path, logs)))
    with pytest.raises(InputError, match="--overwrite"):
        build_ids.run(spark, files, ALI_CCP, CONFIG, str(place), overwrite=False)
    fewer = CONFIG.model_copy(update={"vocabulary": ("121",)})
    build_ids.run(spark, files, ALI_CCP, fewer, str(place), overwrite=True)
    assert ids.read(str(place))["vocabulary"] == ["121"]
    with pytest.raises(InputError, match="expected nothing, an empty folder or an id table to replace"):
        build_ids.run(spark, files, ALI_CCP, CONFIG, str(tmp_path), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".csv") == ["ids"]


def test_other_ranges_give_the_same_table_and_other_ids_another_one(spark, table, logs, tmp_path):
    first = ids.read(str(table))
    halves = CONFIG.model_copy(update={"raw_bytes_per_task": 1 << 20})
    assert ids.read(str(make(spark, tmp_path / "a", logs, halves)))["digest"] == first["digest"]
    fewer = raw_lines.RawLogs(logs.skeleton[:-40], logs.common)
    assert ids.read(str(make(spark, tmp_path / "b", fewer)))["digest"] != first["digest"]


def samples(spark, folder: Path, logs: raw_lines.RawLogs, config: SamplesConfig, table: Path | None) -> Path:
    folder.mkdir()
    files = raw_files.find_logs(*raw_lines.write_logs(folder, logs))
    out = folder / "samples"
    ids_folder = str(table) if table else None
    build_samples.run(
        spark, TextLogs(files), ALI_CCP, config, str(out), overwrite=False, ids_folder=ids_folder
    )
    return out


def test_samples_of_later_logs_have_its_buckets_and_the_rare_one_for_new_ids(
    spark, table, known, tmp_path, monkeypatch
):
    later = few_ids.repeating_logs(seed=22, num_contexts=40, most_ids=120)
    out = samples(spark, tmp_path / "later", later, CONFIG, table)

    def expected(name: str, feature_id: int, size: int, seed: int) -> int:
        return few_ids.expected_bucket(known, name, feature_id, size, seed)

    monkeypatch.setattr(raw_lines, "bucket", expected)
    found = raw_lines.impressions_of_samples(pq.read_table(sorted(map(str, out.glob("part-*.parquet")))))
    wanted = raw_lines.expected_impressions(later, BUCKETS, 9)
    seen: Counter[str] = Counter()
    assert found.keys() == wanted.keys()
    for sample_id, impression in wanted.items():
        for name, values in impression["fields"].items():
            assert [b for b, _ in found[sample_id]["fields"][name]] == [b for b, _ in values], name
            seen.update(name for b, _ in values if name in known and b == 1)
    assert set(known) <= set(seen)  # every field with a table met new or rare ids
    assert manifest.read(str(out))["id_table"]["digest"] == ids.read(str(table))["digest"]


def test_samples_without_the_table_do_not_fit_those_with_it(spark, table, logs, tmp_path):
    with_table = samples(spark, tmp_path / "with", logs, CONFIG, table)
    hashed = CONFIG.model_copy(update={"min_count": {}, "vocabulary": ()})
    without = samples(spark, tmp_path / "without", logs, hashed, None)
    assert "id_table" not in manifest.read(str(without))
    with pytest.raises(InputError, match="do not fit.*id_table"):
        manifest.require_same(SampleSet.read(str(with_table)), SampleSet.read(str(without)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hash_seed": 8}, "hash_seed: table 9, configuration 8"),
        (
            {"buckets": BUCKETS | {"205": 7}},
            "field 205: table min_count from count 3, 96 buckets, config.* 7 b",
        ),
        ({"min_count": MIN_COUNT | {"205": 5}}, "field 205: table min_count from count 3.* from count 5"),
        ({"vocabulary": ("121", "301", "853", "122")}, "field 122: table hash.*configuration vocabulary"),
        ({"min_count": {}, "vocabulary": ()}, "found neither"),
    ],
)
def test_a_table_made_with_other_settings_is_refused(table, changes, message):
    with pytest.raises(InputError, match=message):
        ids.require_fit(str(table), CONFIG.model_copy(update=changes).id_settings(ALI_CCP))


def test_sizes_of_other_fields_may_differ(table):
    other = CONFIG.model_copy(update={"buckets": BUCKETS | {"207": 7}})
    assert ids.require_fit(str(table), other.id_settings(ALI_CCP)) is not None


def test_a_table_made_for_another_schema_is_refused(table):
    renamed = [replace(f, name="302") if f.name == "301" else f for f in FIELDS]
    other = replace(ALI_CCP, fields=tuple(renamed))
    config = CONFIG.model_copy(update={"vocabulary": ("121", "853")})
    message = "made for another schema .only in the table: field 301; only in the schema: field 302"
    with pytest.raises(InputError, match=message):
        ids.require_fit(str(table), config.id_settings(other))


def test_modes_need_a_table_and_a_table_is_no_folder_of_samples(table, tmp_path):
    with pytest.raises(InputError, match=r"fields \(121, 110_14, 205, 853, 301\).*--ids"):
        ids.require_fit(None, CONFIG.id_settings(ALI_CCP))
    with pytest.raises(InputError, match=r"expected samples.*something else"):
        manifest.read(str(table))
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(InputError, match=r"expected an id table.*something else"):
        ids.require_fit(str(tmp_path), CONFIG.id_settings(ALI_CCP))


def test_a_vocabulary_must_fit_into_its_buckets(spark, logs, tmp_path):
    num_ids = len(few_ids.count_ids(logs)["121"])
    config = CONFIG.model_copy(update={"buckets": BUCKETS | {"121": num_ids + 1}})
    message = rf"field 121 has {num_ids} ids and {num_ids + 1} buckets, expected at least {num_ids + 2}"
    with pytest.raises(InputError, match=message):
        make(spark, tmp_path / "full", logs, config)
    assert not [p for p in (tmp_path / "full").iterdir() if p.suffix != ".csv"]
    fits = CONFIG.model_copy(update={"buckets": BUCKETS | {"121": num_ids + 2}})
    made = ids.read(str(make(spark, tmp_path / "fits", logs, fits)))
    assert made["fields"]["121"]["bucket_fill"] == 1


def test_logs_with_too_many_broken_lines_publish_nothing(spark, logs, tmp_path):
    bad = raw_lines.RawLogs(["x"] * 100, logs.common[:50])
    with pytest.raises(InputError, match="100 of 150 lines are broken"):
        make(spark, tmp_path / "bad", bad)
    assert not (tmp_path / "bad" / "ids").exists()


def test_without_modes_there_is_a_report_and_no_table(spark, logs, tmp_path):
    made = ids.read(str(make(spark, tmp_path / "plain", logs, SamplesConfig(buckets=BUCKETS))))
    counts = few_ids.count_ids(logs)
    assert {name: f["kept_ids"] for name, f in made["fields"].items()} == {
        n: len(c) for n, c in counts.items()
    }
    files = list((tmp_path / "plain" / "ids").glob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"min_count": {"999": 5}}, "unknown field 999"),
        ({"min_count": {"205": 1}}, "greater than or equal to 2"),
        ({"vocabulary": ["999"]}, "unknown field 999"),
        ({"vocabulary": ["121"], "buckets": {"121": 2}}, "needs 3 buckets, found 2: 121"),
    ],
)
def test_options_that_make_no_sense_are_refused(section, message):
    with pytest.raises(ValueError, match=message):
        SamplesConfig.model_validate(section, context=ALI_CCP)
