"""The demo names the stage that failed, shows its log and the command that runs it again."""

import sys
from pathlib import Path

import pytest

from scripts.demo import StageError, run_stage, table
from scripts.demo_stages import SIZES, WORLDS, Stage, stages


def test_a_failing_stage_is_named_with_its_last_lines_and_its_command(tmp_path: Path):
    script = "import sys; print('first'); print('the reason', file=sys.stderr); sys.exit(3)"
    good = [sys.executable, "-c", "print('fine')"]
    stage = Stage("break things", [good, [sys.executable, "-c", script]], tmp_path, lambda: "never")
    with pytest.raises(StageError) as error:
        run_stage(1, 1, stage, tmp_path / "log")
    text = str(error.value)
    for part in (
        "'break things' failed with exit code 3",
        "    first",
        "    the reason",
        "run this stage again",
    ):
        assert part in text


def test_rank_0_speaks_without_its_number(tmp_path: Path):
    lines = "[0]<stderr>:12:00:00 epoch 1", "[1]<stderr>:another worker", "[0] is a list"
    stage = Stage("speak", [[sys.executable, "-c", f"print({chr(10).join(lines)!r})"]], tmp_path, lambda: "")
    run_stage(1, 1, stage, tmp_path / "log")
    assert (tmp_path / "log.1.log").read_text().splitlines() == ["12:00:00 epoch 1", *lines[1:]]


@pytest.mark.parametrize("world", WORLDS)
def test_each_stage_reads_what_the_one_before_has_written(tmp_path: Path, world: str):
    found = stages(WORLDS[world], SIZES["tiny"], tmp_path, WORLDS[world].config, workers=2)
    written = {str(tmp_path / "logs")}
    for stage in found:
        for command in stage.commands:
            inputs = [part for part in command if part.startswith(f"{tmp_path}/")]
            assert all(any(part.startswith(out) for out in [*written, str(stage.output)]) for part in inputs)
        written.add(str(stage.output))
    assert len(found) == 6


def test_the_table_shows_what_is_undefined_as_such():
    nothing = {"value": None, "low": None, "high": None, "reason": "no positives"}
    best = {"truth": {"auc": 0.75}}
    task = {"auc": nothing, "baselines": best, "share_of_best": None, "rows": 1000, "positives": 0}
    lines = table({"ctr": task, "cvr": task, "ctcvr": task}).splitlines()
    assert lines[2].split() == ["CTR", "all", "impressions", "-", "-", "0.7500", "-", "1,000", "0"]
