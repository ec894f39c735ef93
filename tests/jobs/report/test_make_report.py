"""Pages of a run and of many: whole, small, safe, the same bytes for the same input."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from cli.errors import InputError
from jobs.make_report import write_index, write_report
from tests.fixtures.report_runs import make_run

MOST_BYTES = 2_000_000
EVERYTHING = {"truth": True, "against": True, "slices": True}


def page_of(run: Path) -> str:
    return Path(write_report(str(run), [])).read_text()


def check_ground_rules(page: str) -> None:
    assert len(page.encode()) < MOST_BYTES
    assert "<script" not in page
    assert not re.findall(r"http|//", re.sub(r"/\*.*?\*/", "", page, flags=re.S))
    ids = Counter(re.findall(r'<[^>]*\bid="([^"]*)"', page))
    assert max(ids.values()) == 1
    for target in re.findall(r'(?:href="#|url\(#)([^")]*)', page):
        assert target in ids


def test_everything_is_there_and_two_times_the_same(tmp_path: Path):
    run = make_run(tmp_path / "run", **EVERYTHING)
    page = page_of(run)
    check_ground_rules(page)
    assert page_of(run) == page
    sections = re.findall(r'<section id="(\w+)"', page)
    assert sections == [
        *("verdict", "metrics", "curves", "calibration", "spaces", "slices", "training", "data", "run")
    ]
    for part in ("best possible", "yesterday", "No profile of the samples", "undefined: no positives"):
        assert part in page


def test_what_is_not_there_is_left_out_or_named(tmp_path: Path):
    run = make_run(tmp_path / "run")
    for name in ("train.jsonl", "config.yaml", "versions.json"):
        (run / name).unlink()
    page = page_of(run)
    assert 'id="spaces"' not in page and 'id="slices"' not in page
    assert "There is no training log" in page


def test_undefined_figures_say_why(tmp_path: Path):
    page = page_of(make_run(tmp_path / "run", clicks=False, truth=True, slices=True))
    check_ground_rules(page)
    assert "undefined: no impressions to judge" in page
    assert "undefined: no positives among 20,000 impressions" in page


def test_a_calibration_is_told_with_the_ece_before_it(tmp_path: Path):
    run = make_run(tmp_path / "run", **EVERYTHING)
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    line = {
        "a": 0.75,
        "b": -0.5,
        "rows": 4321,
        "positives": 21,
        "log_loss_before": 0.2,
        "log_loss_after": 0.1,
    }
    metrics["source"]["calibration"] = {
        **{"format": 1, "tasks": {"ctr": line, "cvr": line}, "fitted_on": {"predictions": "valid"}},
        "written_by": "a test",
    }
    path.write_text(json.dumps(metrics))
    before = metrics["ctr"]["ece"]["value"] - metrics["against"]["ctr"]["ece"]["value"]
    page = page_of(run)
    for part in ("fitted to valid", "ECE of yesterday", "0.20000 to 0.10000", "4,321, 21", f"{before:.4f}"):
        assert part in page


def test_html_in_values_is_text(tmp_path: Path):
    run = make_run(tmp_path / "run", **EVERYTHING)
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    evil = '<script>alert("$x$")</script>'
    metrics["source"]["run"] = metrics["against"]["run"] = metrics["slicings"][0]["name"] = evil
    metrics["slicings"][0]["slices"][0]["label"] = '<b id="x">$a_{$'
    path.write_text(json.dumps(metrics))
    (run / "config.yaml").write_text(evil)
    page = page_of(run)
    check_ground_rules(page)
    assert "&lt;script&gt;" in page and "<b id" not in page


def test_profile_and_stages(tmp_path: Path):
    run = make_run(tmp_path / "run")
    stages = tmp_path / "stages.json"
    stages.write_text(json.dumps([{"name": "train", "command": "esmm.train", "seconds": 61.25}]))
    page = Path(write_report(str(run), [], str(stages))).read_text()
    assert "Seconds per stage" in page and "61.2" in page
    stages.write_text("{}")
    with pytest.raises(InputError, match="list of stages"):
        write_report(str(run), [], str(stages))


def test_files_that_were_asked_for_have_to_be_there(tmp_path: Path):
    run = make_run(tmp_path / "run")
    for profiles, stages in ([str(tmp_path / "none.json")], None), ([], str(tmp_path / "none.json")):
        with pytest.raises(InputError, match=r"none\.json"):
            write_report(str(run), profiles, stages)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("text", ['{"ctr": {"auc": 0.7}}', '{"format": 2}', "{"])
def test_metrics_of_another_format_are_refused(tmp_path: Path, text: str):
    run = make_run(tmp_path / "run")
    (run / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"valuate again"):
        write_report(str(run), [])


@pytest.mark.parametrize("num", [3, 400])
def test_index_over_runs(tmp_path: Path, num: int):
    first = make_run(tmp_path / "day 1")
    metrics = (first / "metrics.json").read_text()
    for day in range(2, num + 1):
        (tmp_path / f"day {day}").mkdir()
        (tmp_path / f"day {day}" / "metrics.json").write_text(metrics)
    (tmp_path / "day 2" / "metrics.json").write_text('{"ctr": {}}')
    write_report(str(first), [])
    page = Path(write_index(str(tmp_path))).read_text()
    check_ground_rules(page)
    names = re.findall(r'<tr><th scope="row">(?:<a[^>]*>)?(day \d+)', page)
    rows = names[-num:]
    assert rows == [f"day {day}" for day in range(1, num + 1)]
    assert 'href="day%201/report.html"' in page
    assert "expected metrics of format 2, found 1" in page


def test_no_runs(tmp_path: Path):
    with pytest.raises(InputError, match=r"found none"):
        write_index(str(tmp_path))


def test_a_decision_is_told_gate_by_gate(tmp_path: Path):
    run = make_run(tmp_path / "run", **EVERYTHING)
    assert 'id="promotion"' not in page_of(run)
    gate = {"name": "calibration ratio of CTR", "kind": "value", "passed": False, "text": "1.4, <from> 0.8"}
    decision = {
        **{"format": 1, "model": "esmm", "version": 4, "day": "2026-09-23", "trained_to": "2026-09-22"},
        **{"parent": 3, "champion": 3, "decision": "kept", "reason": "too high", "gates": [gate]},
        **{"conversions": 63, "differences": {}, "metrics": "metrics.json", "metrics_digest": "a28d"},
        **{"decided_at": "2026-09-24T03:00:00+00:00", "written_by": "a test"},
    }
    (run / "decision.json").write_text(json.dumps(decision))
    page = page_of(run)
    check_ground_rules(page)
    for part in ("Gates on 2026-09-23", "1.4, &lt;from&gt; 0.8", "Champion before: version 3", "broken"):
        assert part in page
    (run / "decision.json").write_text(json.dumps({**decision, "format": 2}))
    with pytest.raises(InputError, match="expected a decision of format 1 .* esmm.registry decide"):
        page_of(run)
