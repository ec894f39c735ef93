"""Fields in a configuration, as YAML reads them without quotes."""

from pathlib import Path

import pytest

from cli.errors import InputError
from jobs.profiling.config import load_profile_config
from jobs.samples_config import load_samples_config
from tests.fixtures.ali_ccp import ALI_CCP


def written(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_fields_need_no_quotes_where_they_are_numbers(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "samples: {buckets: {205: 700, '101': 90}, min_count: {205: 3}, vocabulary: [121, '125']}\n"
        "profile: {gates: {min_coverage: {101: 0.9, any: 0.1}, max_psi: {205: 0.3}}}\n",
    )
    samples, gates = load_samples_config(path, ALI_CCP), load_profile_config(path, ALI_CCP).gates
    assert samples.buckets == {"205": 700, "101": 90}
    assert (samples.min_count, samples.vocabulary) == ({"205": 3}, ("121", "125"))
    assert (gates.min_coverage, gates.max_psi) == ({"101": 0.9, "any": 0.1}, {"205": 0.3})


def test_fields_with_an_underscore_need_quotes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "samples: {buckets: {110_14: 65536, 127_14: 9}, min_count: {109_14: 3}, vocabulary: [150_14]}\n"
        "profile: {gates: {max_psi: {110_14: 0.3}}}\n",
    )
    with pytest.raises(InputError) as error:
        load_samples_config(path, ALI_CCP)
    for part in (
        "3 mistake(s)",
        'buckets: put the field in quotes: "110_14" (YAML reads 11014), "127_14" (YAML reads',
        'min_count: put the field in quotes: "109_14"',
        'vocabulary: put the field in quotes: "150_14"',
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match='max_psi: put the field in quotes: "110_14"'):
        load_profile_config(path, ALI_CCP)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{buckets: {205: 700, '205': 90}}", "field 205 is named twice"),
        ("{buckets: {999: 700}}", "unknown field 999; known: 101, 121"),
        ("{buckets: {true: 700}}", "valid string, found True"),
        ("{buckets: 700}", "buckets: .*valid dictionary"),
        ("{vocabulary: 121}", "vocabulary: .*valid tuple"),
    ],
)
def test_other_mistakes_with_fields(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_samples_config(written(tmp_path, f"samples: {section}\n"), ALI_CCP)
