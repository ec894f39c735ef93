"""The data benchmark: its parts on small things of known size, and the whole on tiny logs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.building import data, raw_logs
from benchmarks.building.data_report import figures, table
from benchmarks.building.polars_tokens import tokenise
from benchmarks.building.route import ROUTES
from benchmarks.building.stage_times import stage_times
from benchmarks.common.process_tree import MemoryMarks, cpu_seconds
from cli.errors import InputError
from tests.fixtures.raw_lines import random_logs, write_logs

# A process that starts another, which takes 128 MB and works for half a second.
WORKER = "import time; a = bytearray(b'x') * 128_000_000\nwhile time.process_time() < 0.5: pass"
DRIVER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}]); sys.stdin.read()"


def test_marks_and_seconds_of_a_tree():
    process = subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE)
    try:
        marks, end = MemoryMarks(process.pid), time.monotonic() + 60
        while cpu_seconds(process.pid)["python"] < 0.5 and time.monotonic() < end:
            marks.sample()
            time.sleep(0.01)
    finally:
        process.communicate()
    assert 128e6 < marks.resident["worker"] < 200e6
    assert marks.resident["driver"] < 100e6
    assert 128e6 < marks.total < 300e6


def test_seconds_of_an_ended_child_are_kept():
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", WORKER], check=True)
    used = cpu_seconds()["python"] - before["python"]
    assert 0.5 <= used < 5


def test_tokens_are_those_of_a_plain_reading(tmp_path):
    logs = random_logs(seed=3, num_contexts=200)
    skeleton, common = write_logs(tmp_path, logs)
    lists = [line.rpartition(",")[2] for line in logs.skeleton + logs.common]
    tokens = [token for features in lists if features for token in features.split("\x01")]
    expected = {
        "tokens": len(tokens),
        "declared_tokens": len(tokens),
        "bytes": sum(len(token) - 2 for token in tokens),  # without its two separators
    }
    assert tokenise(skeleton, common, threads=2) == expected


def task_end(stage: int, begin: int, end: int, *, read: int = 0, written: int = 0, reason: str = "Success"):
    """A line of Spark's event log; times in milliseconds."""
    return json.dumps(
        {
            "Event": "SparkListenerTaskEnd",
            "Stage ID": stage,
            "Task End Reason": {"Reason": reason},
            "Task Info": {"Launch Time": begin, "Finish Time": end},
            "Task Metrics": {
                "Executor CPU Time": 250_000_000,
                "JVM GC Time": 20,
                "Disk Bytes Spilled": 0,
                "Shuffle Read Metrics": {"Local Bytes Read": read, "Remote Bytes Read": 0},
                "Shuffle Write Metrics": {"Shuffle Bytes Written": written},
            },
        },
        separators=(",", ":"),
    )


def test_stages_between_two_moments(tmp_path):
    lines = [
        task_end(0, 1_000, 2_000, written=9),  # of the run that warms up
        task_end(3, 11_000, 13_000, written=2_000_000),
        task_end(3, 11_000, 14_000, written=3_000_000),
        task_end(3, 11_000, 19_000, written=3_000_000, reason="TaskKilled"),
        task_end(4, 14_500, 16_000, read=5_000_000),
        '{"Event":"SparkListenerApplicationEnd","Timestamp":20000}',
    ]
    (tmp_path / "local-1").write_text("\n".join(lines))
    found = stage_times(tmp_path, begin=10.0, end=16.25)
    first, second = found["stages"]
    assert (first["tasks"], first["seconds"], first["task_seconds"]) == (2, 3.0, 5.0)
    assert (first["what"], second["what"]) == ("read, parse, shuffle", "sort, unpack, write")
    assert (first["shuffle_megabytes_written"], first["longest_task_seconds"]) == (5.0, 3.0)
    assert (first["jvm_cpu_seconds"], first["gc_seconds"]) == pytest.approx((0.5, 0.04))
    assert found["planning_seconds"] == 1.0
    assert found["between_stages_seconds"] == 0.5
    assert found["commit_and_publish_seconds"] == 0.25


def made_up_run(size: int, route: str, seconds: float) -> dict[str, Any]:
    memory = {"resident": {"driver": 10**8, "jvm": 10**9 * size}, "proportional": {}, "total": 2 * 10**9}
    run = {"size": size, "route": route, "raw_bytes": size * 10**9, "seconds": seconds, "memory": memory}
    run |= {"cpu_seconds": {"jvm": seconds, "python": seconds / 2}, "cores_of_others": 0.1}
    if route == "polars":
        return run | {"tokens": 5, "declared_tokens": 5}
    return run | {"written_bytes": size * 10**8}


def test_figures_are_medians_and_ratios():
    times = {(1, "ours"): (10, 30, 11), (1, "plain"): (99, 110, 120), (1, "polars"): (2, 2, 2)}
    times |= {(4, "ours"): (40, 48), (4, "plain"): (440, 440), (4, "polars"): (8, 8)}
    times |= {(1, "tables"): (20, 22, 24), (4, "tables"): (44, 44)}
    runs = [made_up_run(size, route, t) for (size, route), some in times.items() for t in some]
    found = figures(runs)
    assert found["1"]["ours"]["megabytes_per_second"] == pytest.approx(1000 / 11)
    assert (found["1"]["ratio_to_plain"], found["4"]["ratio_to_plain"]) == (10, 10)
    assert found["1"]["ratio_to_polars"] == pytest.approx(2 / 11)
    assert (found["1"]["tables_to_text"], found["4"]["tables_to_text"]) == (0.5, 1)
    assert (found["1"]["flatness"], found["4"]["flatness"]) == (1, 1)
    assert found["4"]["ours"]["cpu_seconds_per_gigabyte"] == pytest.approx(16.5)
    assert found["4"]["ours"]["memory_megabytes"]["jvm_resident"] == 4000
    assert found["4"]["ours"]["size_of_raw"] == pytest.approx(0.1)


def test_tokens_lost_by_polars_are_noticed():
    runs = [made_up_run(1, route, 1.0) for route in ROUTES]
    next(run for run in runs if run["route"] == "polars")["tokens"] = 4
    with pytest.raises(RuntimeError, match="polars found 4 tokens, the lines declare 5"):
        figures(runs)


def test_logs_are_drawn_once_and_hold_no_truth(tmp_path):
    folder = tmp_path / "raw"
    [first] = raw_logs.draw_missing({folder: 20}).values()
    assert {path.name for path in folder.iterdir()} == {
        "_SUCCESS",
        "common_features_train.csv",
        "raw_logs.json",
        "sample_skeleton_train.csv",
    }
    assert first.bytes == sum(path.stat().st_size for path in folder.glob("*.csv"))
    drawn = (folder / "_SUCCESS").stat().st_mtime_ns
    assert raw_logs.draw_missing({folder: 20})[folder] == first
    assert (folder / "_SUCCESS").stat().st_mtime_ns == drawn
    assert raw_logs.draw_missing({folder: 40})[folder].bytes > 1.5 * first.bytes


def test_a_disk_too_small_is_noticed_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"GB free, expected 71500000\.0 GB for raw logs"):
        raw_logs.draw_missing({tmp_path / "raw": 10**12})
    assert not (tmp_path / "raw").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_on_tiny_logs(tmp_path):
    options = ["--out", str(tmp_path), "--sizes", "1", "2", "--repeats", "1", "--contexts", "60"]
    results = data.run(data.parse_arguments(options))
    assert json.loads((tmp_path / "data.json").read_text()) == results
    assert [(run["size"], run["route"]) for run in results["runs"]] == [
        (s, r) for s in (1, 2) for r in ROUTES
    ]
    for run in results["runs"]:
        check_run(run, tmp_path / f"raw-{run['size']}x")
    impressions = {run["route"]: run["impressions"] for run in results["runs"] if "impressions" in run}
    assert impressions["tables"] == impressions["ours"]
    one, two = results["figures"]["1"], results["figures"]["2"]
    assert 1.5 < two["raw_megabytes"] / one["raw_megabytes"] < 2.5
    assert two["flatness"] == pytest.approx(
        two["ours"]["seconds_per_gigabyte"] / one["ours"]["seconds_per_gigabyte"]
    )
    assert not (tmp_path / "work").exists()
    assert "ours / plain Spark SQL" in table(results)


def check_run(run: dict[str, Any], folder: Path) -> None:
    """Figures that can be true, and the same work in every route."""
    lines = len((folder / "sample_skeleton_train.csv").read_bytes().splitlines())
    assert run["raw_bytes"] == sum(path.stat().st_size for path in folder.glob("*.csv"))
    assert 0 < run["seconds"] == pytest.approx(run["end"] - run["begin"], abs=0.05)
    assert sum(run["cpu_seconds"].values()) > 0
    marks = run["memory"]["resident"]
    if run["route"] == "polars":
        assert run["tokens"] == run["declared_tokens"] > lines
        assert "jvm" not in marks
        return
    assert 200e6 < marks["jvm"] < 3e9
    assert 0 <= run["cores_of_others"] < 1.2 * os.cpu_count()  # a tick is long for so short a run
    assert 0.01 < run["written_bytes"] / run["raw_bytes"] < 1
    if run["route"] == "ours":
        assert run["impressions"] + run["quarantined"] == lines
        assert 50e6 < marks["worker"] < 2e9
        check_profile(run)


def check_profile(run: dict[str, Any]) -> None:
    profile = run["profile"]
    outside = [profile[f"{what}_seconds"] for what in ("planning", "between_stages", "commit_and_publish")]
    assert sum(outside) + sum(stage["seconds"] for stage in profile["stages"]) == pytest.approx(
        run["seconds"], abs=0.1
    )
    assert profile["stages"][0]["shuffle_megabytes_written"] > 0
