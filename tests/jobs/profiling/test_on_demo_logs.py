"""The profile of the demo's samples shows the rates, coverage and list lengths of the real logs.

Expected values are those of the Ali-CCP training half (docs of the data set; the demo's CVR is its own).
Tolerances are what tests/jobs/test_make_demo_logs.py holds the generator to.
"""

from typing import NamedTuple

import pytest

from jobs import build_samples, profile_samples
from jobs.demo_logs.options import Options
from jobs.make_demo_logs import make_logs
from jobs.profiling.config import load_profile_config
from jobs.raw_logs import files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import load_samples_config
from schemas.profile import Profile
from tests.fixtures.ali_ccp import ALI_CCP

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = "configs/demo.yaml"
OPTIONS = Options()


class Demo(NamedTuple):
    """The profile of the test half against the training half, that of the training half, and the logs."""

    test: Profile
    train: Profile
    logs: dict


@pytest.fixture(scope="module")
def demo(spark, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    logs = make_logs(str(folder / "raw"), OPTIONS, processes=2, overwrite=False)
    settings, gates = load_samples_config(CONFIG, ALI_CCP), load_profile_config(CONFIG, ALI_CCP)
    sets = {split: str(folder / f"split={split}") for split in ("train", "test")}
    for split, out in sets.items():
        names = (f"{folder}/raw/{kind}_{split}.csv" for kind in ("sample_skeleton", "common_features"))
        build_samples.run(spark, TextLogs(files.find_logs(*names)), ALI_CCP, settings, out, overwrite=False)
    inputs = profile_samples.read_inputs(sets["train"])
    train = profile_samples.run(spark, inputs, gates, str(folder / "train.json"))
    inputs = profile_samples.read_inputs(sets["test"], against=sets["train"])
    test = profile_samples.run(spark, inputs, gates, str(folder / "test.json"))
    return Demo(test, train, logs)


def coverage(profile: Profile, *fields: str) -> dict[str, float | None]:
    return {field: profile["fields"][field]["coverage"] for field in fields}


def test_counts_are_those_of_the_generator(demo: Demo) -> None:
    for split, profile in (("train", demo.train), ("test", demo.test)):
        drawn, found = demo.logs["splits"][split], profile["counts"]
        dirty = drawn["dirt_conversion_without_click"]
        assert found["impressions"] == drawn["rows"] - dirty
        assert (found["contexts"], found["clicks"]) == (drawn["contexts"], drawn["clicks"])
        assert found["conversions"] == drawn["conversions"]
        assert profile["quarantine"]["lines"] == {"conversion_without_click": dirty}
        without = drawn["rows_without_user_id"] / drawn["rows"]
        assert profile["fields"]["101"]["coverage"] == pytest.approx(1 - without, abs=1e-5)


def test_rates_are_those_asked_for(demo: Demo) -> None:
    for profile in (demo.train, demo.test):
        clicks, conversions = profile["counts"]["clicks"], profile["counts"]["conversions"]
        # Four standard errors of a count, and one per cent that calibration may be off.
        assert profile["rates"]["ctr"] == pytest.approx(OPTIONS.ctr, rel=0.01 + 4 / clicks**0.5)
        assert profile["rates"]["cvr"] == pytest.approx(OPTIONS.cvr, rel=0.01 + 4 / conversions**0.5)
    assert demo.train["impressions_per_context"]["mean"] == pytest.approx(57.9, rel=0.01)


def test_coverage_is_that_of_the_real_logs(demo: Demo) -> None:
    by_context = {name: field.get("coverage_contexts") for name, field in demo.train["fields"].items()}
    for field in ("121", "122", "124", "125", "127", "128"):
        assert by_context[field] == pytest.approx(0.87, abs=0.05)
    assert by_context["126"] == pytest.approx(0.42, abs=0.08)
    assert by_context["129"] == pytest.approx(0.64, abs=0.08)
    assert all(share > 0.999 for share in coverage(demo.train, "205", "206", "207", "301").values())
    assert demo.train["fields"]["101"]["coverage"] == pytest.approx(0.998, abs=0.001)
    assert demo.train["fields"]["216"]["coverage"] == pytest.approx(0.71, abs=0.06)
    expected = {"508": 0.70, "509": 0.22, "702": 0.22}
    assert coverage(demo.train, *expected) == pytest.approx(expected, abs=0.03)


def test_list_lengths_are_those_of_the_real_logs(demo: Demo) -> None:
    lengths = {name: field["lengths"] for name, field in demo.train["fields"].items() if "lengths" in field}
    means = {"109_14": 69.0, "110_14": 250.0, "127_14": 153.6, "150_14": 135.9}
    for field, mean in means.items():
        assert lengths[field]["mean"] == pytest.approx(mean, rel=0.12)
        assert lengths[field]["p50"] < mean < lengths[field]["p99"] < lengths[field]["max"]
    assert lengths["210"]["mean"] == pytest.approx(6.1, abs=0.6)
    assert lengths["853"]["mean"] == pytest.approx(1.40, abs=0.15)


def test_distinct_ids_are_estimated_near_the_world(demo: Demo) -> None:
    """Fields whose every id is drawn: 97 categories of profiles are too many for all to occur."""
    fields, world = demo.train["fields"], demo.logs["world"]
    drawn = {"122": 13, "124": 2, "127": 3, "128": 2, "129": 4, "301": 3, "109_14": world["categories"]}
    for name, ids in drawn.items():
        field = fields[name]
        error = max(1.0, 4 * field["distinct_ids_error"] * ids)
        assert field["distinct_ids"] == pytest.approx(ids, abs=error)


def test_halves_are_of_one_origin_and_keep_the_gates(demo: Demo) -> None:
    assert demo.test["gates"] == {"judged": demo.test["gates"]["judged"], "skipped": [], "broken": []}
    assert demo.train["gates"]["skipped"] == ["max_psi", "max_unseen_share"]
    assert demo.train["gates"]["broken"] == []
    assert demo.test["duplicate_sample_ids"] == demo.train["duplicate_sample_ids"] == 0
