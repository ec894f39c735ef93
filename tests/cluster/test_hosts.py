"""Training by two workers on two hosts, which talk over a network that is not the loopback interface."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from esmm.checkpoints.files import DENSE_FILE, complete_checkpoints, newest_checkpoint
from esmm.checkpoints.state import read_state
from tests.fixtures.cluster import hosts
from tests.fixtures.cluster.hosts import INTERFACE, Hosts, listener
from tests.fixtures.cluster.processes import Daemon, daemon, python_environment, run, wait_until
from tests.fixtures.sample_files import write_samples

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(hosts.missing() is not None, reason=str(hosts.missing())),
]
SECONDS = 180  # for one training; a busy machine takes its time
NETWORK = ("--network-interfaces", INTERFACE)  # left to itself, horovodrun may choose the loopback interface
ENVIRONMENT = python_environment(OMP_NUM_THREADS="1")  # they share this machine's cores, as local workers do
CONFIG = {
    "model": {"embedding_dim": 8, "towers": [64, 32]},
    "train": {"batch_size": 32, "epochs": 1, "checkpoint_steps": 10},
}


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts.two_hosts(tmp_path_factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of about 40 steps and a configuration."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder / "train", num_rows=200, seed=1)
    write_samples(folder / "valid", num_rows=30, seed=2)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def train(place: Path, run_folder: Path) -> list[str]:
    """The command of one worker."""
    names = {"config": place / "config.yaml", "train": place / "train", "valid": place / "valid"}
    options = [text for name, value in names.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "esmm.train", *options, "--run", str(run_folder)]


def horovodrun(*options: str) -> list[str]:
    # It remembers for an hour which interfaces and hosts it has found.
    return [str(Path(sys.executable).parent / "horovodrun"), "--disable-cache", *options]


def test_two_hosts_train_what_two_local_workers_train(two_hosts: Hosts, place: Path, tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    launcher = horovodrun("-np", "2", "-H", "localhost:2")
    run([*launcher, *train(place, near)], tmp_path / "near.log", ENVIRONMENT, SECONDS)
    before = two_hosts.sent_bytes()
    launcher = two_hosts.on_rank_zero(horovodrun("-np", "2", "-H", "host1:1,host2:1", *NETWORK))
    run([*launcher, *train(place, far)], tmp_path / "far.log", ENVIRONMENT, SECONDS)
    sent = [after - start for start, after in zip(before, two_hosts.sent_bytes(), strict=True)]
    states = [read_state(newest_checkpoint(folder)) for folder in (near, far)]
    assert states[0].sha256 == states[1].sha256
    # In a ring of two, each rank sends as many bytes as the gradients have, in every step.
    dense = load_file(newest_checkpoint(far) / DENSE_FILE)
    network = sum(4 * tensor.numel() for name, tensor in dense.items() if name.startswith("network."))
    assert network > 50_000 and states[1].step > 30
    assert min(sent) > network * states[1].step


def test_a_host_that_is_lost_costs_no_more_than_the_work_since_the_last_checkpoint(
    two_hosts: Hosts, place: Path, tmp_path: Path
) -> None:
    script, run_folder = tmp_path / "hosts.sh", tmp_path / "run"
    script.write_text("#!/bin/sh\nprintf 'host1:1\\nhost2:1\\n'\n")
    script.chmod(0o755)
    elastic = ["--min-np", "1", "--max-np", "2", "--host-discovery-script", str(script)]
    launcher = two_hosts.on_rank_zero(horovodrun("-np", "2", *elastic, *NETWORK))
    command = [*launcher, *train(place, run_folder), "--set", "train.epochs=4"]
    with daemon(command, tmp_path / "log", ENVIRONMENT) as process:
        wait_until(lambda: bool(complete_checkpoints(run_folder)), SECONDS, [process])
        lose(two_hosts.servers[1])
        assert process.guard.wait(SECONDS) == 0, (tmp_path / "log").read_text()
    assert "going on with 1 worker(s)" in (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in (run_folder / "train.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2, 3, 4]
    state = read_state(newest_checkpoint(run_folder))
    assert state.world_size == 1


def lose(server: Daemon) -> None:
    """Kill whatever the host's SSH server has started."""
    for process in listener(server).children(recursive=True):
        os.kill(process.pid, signal.SIGKILL)
