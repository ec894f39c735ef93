"""Training under elastic Horovod: workers are killed, told to stop and added in the middle of an epoch."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cli.errors import EXIT_BAD_INPUT
from esmm.checkpoints.files import newest_checkpoint
from esmm.checkpoints.state import read_state
from esmm.train import parse_arguments
from esmm.training_run import train
from esmm.workers import elastic
from esmm.workers.world import AgreedError
from tests.fixtures.cluster.processes import PROJECT, Daemon, daemon, wait_until
from tests.fixtures.sample_files import read_rows, write_samples
from tests.fixtures.workers import ONE_WORKER, Command

CONFIG = {
    "model": {"embedding_dim": 4, "towers": [8, 4]},
    # Fast enough for 80 steps.
    "optimizer": {"dense": {"learning_rate": 0.03}, "sparse": {"learning_rate": 0.1}},
    "train": {"batch_size": 8, "epochs": 1, "log_every": 5, "checkpoint_steps": 10, "keep_checkpoints": 2},
}
SECONDS = 120  # for a worker to start on a busy machine
KILLED_AT, ADDED_AT, STOPPED_AT = 25, 35, 55
# Three names of this machine: Horovod gives up a whole host when one of its workers dies.
NAMES = ("localhost", "127.0.0.1", "127.1")


@dataclass(frozen=True)
class Elastic:
    """An elastic run. place: its files; process: horovodrun."""

    place: Path
    process: Daemon

    def set_hosts(self, *names: str) -> None:
        """Name the hosts, and return when horovodrun has worked on them."""
        partial = self.place / "hosts.partial"
        partial.write_text("".join(f"{name}:1\n" for name in names))
        partial.rename(self.place / "hosts")
        calls = self.calls()
        wait_until(lambda: self.calls() >= calls + 2, SECONDS, [self.process])

    def calls(self) -> int:
        """How often horovodrun has asked for the hosts."""
        return len((self.place / "calls").read_text())

    def worker_at(self, step: int, rank: int) -> int:
        """Wait until a rank is at a step; its process."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [line for line in records(self.place) if (line["step"], line["rank"]) == (step, rank)]
            return bool(found)

        wait_until(is_there, SECONDS, [self.process])
        return int(found[-1]["pid"])


def records(place: Path) -> list[dict[str, Any]]:
    """What record_training.py has written, in the order of time."""
    lines = [
        {**json.loads(line), "pid": int(path.stem)}
        for path in place.glob("*.jsonl")
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    return sorted(lines, key=lambda line: line["time"])


def arguments(place: Path, run: str, **changed: str) -> list[str]:
    """Options of esmm.train."""
    names = {"config": "config.yaml", "train": "train", "valid": "valid", "run": run, **changed}
    return [text for name, value in names.items() for text in (f"--{name}", str(place / value))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of about 80 steps, a configuration, and two hosts."""
    folder = tmp_path_factory.mktemp("elastic")
    write_samples(folder / "train", num_rows=100, seed=1, learnable=True)
    write_samples(folder / "valid", num_rows=30, seed=2, learnable=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "hosts").write_text(f"{NAMES[0]}:1\n{NAMES[1]}:1\n")
    script = folder / "hosts.sh"
    script.write_text(f"#!/bin/sh\nprintf x >> {folder}/calls\ncat {folder}/hosts\n")
    script.chmod(0o755)
    return folder


def start(place: Path, *command: str, first: int = 2, most: int = 3) -> list[str]:
    """An elastic command of one to `most` workers, `first` of them from the start."""
    launcher = [str(Path(sys.executable).parent / "horovodrun"), "-np", str(first), "--min-np", "1"]
    launcher += ["--max-np", str(most), "--host-discovery-script", str(place / "hosts.sh")]
    return [*launcher, "--network-interfaces", "lo", sys.executable, "-m", *command]


@pytest.fixture(scope="module")
def survived(place: Path) -> Path:
    """A run of two workers: rank 0 is killed, another worker is added, that one is told to stop."""
    for step in (KILLED_AT, ADDED_AT, STOPPED_AT):
        (place / f"wait-{step}").touch()
    command = start(place, "tests.programs.record_training", str(place), *arguments(place, "run"))
    with daemon(command, place / "log", dict(os.environ)) as process:
        run = Elastic(place, process)
        victim, survivor = run.worker_at(KILLED_AT, 0), run.worker_at(KILLED_AT, 1)
        os.kill(victim, signal.SIGKILL)
        (place / f"wait-{KILLED_AT}").unlink()
        assert run.worker_at(ADDED_AT, 0) == survivor
        run.set_hosts(*NAMES)
        (place / f"wait-{ADDED_AT}").unlink()
        added = run.worker_at(STOPPED_AT, 1)
        assert added not in (victim, survivor)
        os.kill(added, signal.SIGTERM)
        (place / f"wait-{STOPPED_AT}").unlink()
        assert process.guard.wait(SECONDS) == 0, (place / "log").read_text()
    return place


def test_the_run_is_complete(survived: Path) -> None:
    log = (survived / "log").read_text()
    assert (survived / "run" / "_SUCCESS").exists(), log
    assert log.count("another worker has stopped") == 1 and "has failed" not in log
    assert log.count("going on with 1 worker(s)") == 2 and log.count("going on with 2 worker(s)") == 1
    assert "another worker was told to stop: going on without it" in log


def test_every_impression_of_the_epoch_counts_once(survived: Path) -> None:
    lines = records(survived)
    legs = list(dict.fromkeys((line["start"], line["workers"]) for line in lines))
    assert [workers for _, workers in legs] == [2, 1, 2, 1]
    starts = [start for start, _ in legs]
    # Killed after the checkpoint of step 20, joined at that of 40, stopped with one of its own.
    assert starts[:3] == [0, 20, 40] and STOPPED_AT <= starts[3] < STOPPED_AT + 10
    counted = []
    for line in lines:
        leg = legs.index((line["start"], line["workers"]))
        if line["step"] <= [*starts, 10**9][leg + 1]:  # later ones were lost with their world
            counted += line["samples"]
    everything = [sample for row in read_rows(survived / "train") for sample in row["sample_id"]]
    assert sorted(counted) == sorted(everything)


def test_the_log_has_every_step_once(survived: Path) -> None:
    entries = [json.loads(line) for line in (survived / "run" / "train.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in entries if entry["kind"] == "train"]
    assert steps == sorted(set(steps))
    assert entries[-1]["kind"] == "epoch" and entries[-1]["step"] == records(survived)[-1]["step"]


def test_it_has_learnt_what_an_uninterrupted_run_learns(survived: Path) -> None:
    train(ONE_WORKER, parse_arguments(arguments(survived, "whole")))
    aucs = [auc_of(survived / run) for run in ("run", "whole")]
    assert min(aucs) > 0.85, aucs  # 0.93 is what the positions tell, 0.5 what nobody has learnt


def auc_of(run: Path) -> float:
    """CTR AUC of a run's last validation."""
    last = json.loads((run / "train.jsonl").read_text().splitlines()[-1])
    return float(last["auc_ctr"])


def test_a_worker_without_the_samples_leaves_and_the_others_train(place: Path, tmp_path: Path) -> None:
    """Whatever its rank: Horovod shuffles the hosts that it starts with."""
    (place / "hosts").write_text("".join(f"{name}:1\n" for name in NAMES))
    (tmp_path / f"on-{NAMES[2]}").mkdir()
    samples = os.path.relpath(place / "train", PROJECT)
    options = [*arguments(place, "healthy"), "--train", samples]
    words = start(place, "tests.programs.record_training", str(tmp_path), *options, first=3)
    with daemon(words, tmp_path / "log", dict(os.environ)) as process:
        assert process.guard.wait(SECONDS) == 0, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert log.count(f"error: {samples}: expected a folder of samples, found nothing.") == 1
    assert f"cannot take part: {samples}: expected a folder" in log
    assert {(line["start"], line["workers"]) for line in records(tmp_path)} == {(0, 2)}
    assert (place / "healthy" / "_SUCCESS").exists()


@pytest.mark.slow
def test_with_a_spare_host_a_killed_worker_changes_no_bit(
    place: Path, tmp_path: Path, command: Command
) -> None:
    assert command("-m", "esmm.train", *arguments(place, "calm"), workers=2).returncode == 0
    (place / "hosts").write_text("".join(f"{name}:1\n" for name in NAMES))
    (tmp_path / f"wait-{KILLED_AT}").touch()
    words = start(place, "tests.programs.record_training", str(tmp_path), *arguments(place, "shaken"), most=2)
    with daemon(words, tmp_path / "log", dict(os.environ)) as process:
        os.kill(Elastic(tmp_path, process).worker_at(KILLED_AT, 0), signal.SIGKILL)
        (tmp_path / f"wait-{KILLED_AT}").unlink()
        assert process.guard.wait(SECONDS) == 0, (tmp_path / "log").read_text()
    assert "going on with 2 worker(s)" in (tmp_path / "log").read_text()
    states = [read_state(newest_checkpoint(place / run)) for run in ("calm", "shaken")]
    assert states[0].sha256 == states[1].sha256


def test_bad_input_ends_an_elastic_run_with_one_message(place: Path, tmp_path: Path) -> None:
    (place / "hosts").write_text(f"{NAMES[0]}:1\n{NAMES[1]}:1\n")
    command = start(place, "esmm.train", *arguments(place, "other", valid="nowhere"))
    with daemon(command, tmp_path / "log", dict(os.environ)) as process:
        assert process.guard.wait(SECONDS) == 1  # horovodrun's own
    log = (tmp_path / "log").read_text()
    assert log.count(f"error: {place / 'nowhere'}: expected a folder of samples, found nothing.") == 1
    assert f"exit with status code {EXIT_BAD_INPUT}" in log


def test_training_that_gets_nowhere_is_given_up() -> None:
    with pytest.raises(AgreedError, match="3 times in a row .* before it reached a checkpoint"):
        elastic._has_begun(ONE_WORKER, elastic._Attempts(begun=True, futile=4))
    assert elastic._has_begun(ONE_WORKER, elastic._Attempts(begun=True, futile=3))
    assert not elastic._has_begun(ONE_WORKER, elastic._Attempts(begun=False, futile=1))


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_world_that_is_left_gives_its_memory_of_a_gpu_back(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool
) -> None:
    """Else the table of the next world, twice as large, would not find room beside what torch keeps."""
    done = []
    monkeypatch.setattr(elastic, "leave", lambda: done.append("leave"))
    monkeypatch.setattr(elastic.gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: on_gpu)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("empty"))
    elastic._leave()
    assert done == ["leave", "collect", *(["empty"] if on_gpu else [])]
