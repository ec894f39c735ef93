"""What killed jobs leave beside an output: removed by the next one, but never while somebody writes there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import publishing, staging

WRITE_FOR_EVER = """
import sys, time
from storage import staging
with staging.beside(sys.argv[1]) as place:
    open(place + "/part", "w").close()
    print(place, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def without_grace(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staging, "SECONDS_OF_GRACE", 0)


def start(out: Path) -> tuple["subprocess.Popen[str]", Path]:
    """A process that writes the output, and where."""
    job = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(out)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert job.stdout is not None
    return job, Path(job.stdout.readline().strip())


def test_a_killed_job_s_leftover_is_swept_and_a_living_one_s_is_not(tmp_path: Path):
    out = tmp_path / "samples"
    job, place = start(out)
    try:
        assert place.parent == tmp_path and place.name.startswith(".samples.staging-")
        with staging.beside(str(out)) as mine:
            time.sleep(0.02)
            staging.sweep(str(out))
            assert {path.name for path in tmp_path.iterdir()} == {place.name, Path(mine).name}
        assert (place / "part").exists()
        job.send_signal(signal.SIGKILL)
        job.wait(30)
        time.sleep(0.02)
        staging.sweep(str(out))
        assert not list(tmp_path.iterdir())
    finally:
        job.kill()
        job.wait(30)


def test_only_what_bears_the_output_s_name_is_swept(tmp_path: Path):
    ours = publishing.staging_name(str(tmp_path / "a"))
    others = [
        publishing.staging_name(str(tmp_path / "b")),
        str(tmp_path / ".a.staging-notes"),
        str(tmp_path / "a"),
    ]
    for folder in (ours, *others):
        Path(folder).mkdir()
    time.sleep(0.02)
    staging.sweep(f"{tmp_path}/a/")
    assert {str(path) for path in tmp_path.iterdir()} == set(others)


def test_a_young_leftover_may_be_one_whose_job_has_not_locked_it_yet(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(staging, "SECONDS_OF_GRACE", 60)
    young = Path(publishing.staging_name(str(tmp_path / "a")))
    young.mkdir()
    staging.sweep(str(tmp_path / "a"))
    assert young.exists()


def test_an_old_output_just_moved_aside_counts_as_young(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(staging, "SECONDS_OF_GRACE", 2)
    out = tmp_path / "a"
    aside = publishing.staging_name(str(tmp_path / "a"))
    out.mkdir()
    time.sleep(2.1)
    out.rename(aside)
    staging.sweep(str(out))
    assert Path(aside).exists()


def test_staging_is_removed_however_the_work_ends(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), staging.beside(str(tmp_path / "a")) as place:
        (Path(place) / "part").write_text(str(1 / 0))
    with staging.beside(str(tmp_path / "a")) as place:
        Path(place).rename(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_leftovers_that_cannot_be_removed_do_not_fail_the_job(tmp_path: Path, monkeypatch, caplog):
    leftover = Path(publishing.staging_name(str(tmp_path / "a")))
    leftover.mkdir()
    time.sleep(0.02)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(staging.shutil, "rmtree", refuse)
    staging.sweep(str(tmp_path / "a"))
    assert leftover.exists() and str(leftover) in caplog.text
