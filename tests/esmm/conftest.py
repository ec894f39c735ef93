"""What the tests of `esmm` share: one thread, inputs of small runs, real Horovod workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.fixtures.runs import Inputs
from tests.fixtures.workers import PROJECT, Command


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The tests' tensors are tiny: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs `python ARGUMENTS` as the user would, on `workers` Horovod workers."""

    def start(*arguments: str | Path, workers: int = 1) -> "subprocess.CompletedProcess[str]":
        binaries = Path(sys.executable).parent
        launcher = [str(binaries / "horovodrun"), "-np", str(workers), "-H", f"localhost:{workers}"]
        environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
        line = [*(launcher if workers > 1 else []), sys.executable, *map(str, arguments)]
        return subprocess.run(line, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=240)

    return start
