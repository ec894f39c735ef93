"""jobs.progress: the line itself, and a real build that writes such lines."""

import logging
import re
import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cli.errors import InputError
from jobs import build_samples, progress
from jobs.progress import duration, line, name_of
from jobs.raw_logs import files as raw_files
from jobs.raw_logs.text_logs import TextLogs
from jobs.samples_config import SamplesConfig
from tests.fixtures.ali_ccp import ALI_CCP
from tests.fixtures.raw_lines import random_logs, write_logs

STAGES = ("reading", "sorting")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("reading", 1, 4, 30.0, 8_000_000_000), "reading: 25 %, 67 MB/s, 2 min left"),
        (("reading", 3, 4, 30.0), "reading: 75 %, 10 s left"),
        (("reading", 0, 4, 30.0, 8_000_000_000), "reading: 0 %"),
        (("reading", 4, 4, 30.0, 60_000_000), "reading: 100 %, 2 MB/s, 0 s left"),
    ],
)
def test_line(arguments: tuple[str, int, int, float], expected: str) -> None:
    assert line(*arguments) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3570, "1 h 0 min"), (3 * 3600 + 310, "3 h 5 min")],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_stages_are_numbered_and_the_last_name_serves_for_all_that_follow() -> None:
    names = [name_of(place, STAGES) for place in range(3)]
    assert names == ["reading (1 of 2)", "sorting (2 of 2)", "sorting (stage 3)"]
    assert name_of(0, STAGES[:1]) == "reading"


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[raw_files.LogFile]:
    """Logs of a build that is looked at all the time."""
    monkeypatch.setattr(progress, "SECONDS_IN_LOG", 0.01)
    skeleton, common = write_logs(tmp_path, random_logs(seed=3, num_contexts=300))
    return raw_files.find_logs(skeleton, common)


SETTINGS = SamplesConfig(raw_bytes_per_file=20_000)


def test_a_build_says_how_far_it_is(
    spark: SparkSession, logs: list[raw_files.LogFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "jobs.progress"):
        build_samples.run(
            spark, TextLogs(logs), ALI_CCP, SETTINGS, str(tmp_path / "samples"), overwrite=False
        )
    written = [record.getMessage() for record in caplog.records if record.name == "jobs.progress"]
    for name in (r"reading the logs \(1 of 2\)", r"sorting and writing samples \(2 of 2\)"):
        of_stage = [text for text in written if re.match(name, text)]
        assert of_stage
        assert all(re.fullmatch(rf"{name}: \d+ %(, \d+ MB/s, \d+ s left)?", text) for text in of_stage)
    assert any("MB/s" in text for text in written)
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_an_error_ends_the_report(spark: SparkSession, logs: list[raw_files.LogFile], tmp_path: Path) -> None:
    with Path(logs[1].path.removeprefix("file://")).open("a") as stream:
        stream.write("more\n")
    with pytest.raises(InputError, match="it changed while"):
        build_samples.run(
            spark, TextLogs(logs), ALI_CCP, SETTINGS, str(tmp_path / "samples"), overwrite=False
        )
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
