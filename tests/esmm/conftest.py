"""How the tests of `esmm` start real Horovod workers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from esmm.distributed import World

PROJECT = Path(__file__).parents[2]
ONE_WORKER = World(1, 0, 0, 1, torch.device("cpu"))
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The tests' tensors are tiny: more threads only wait for each other."""
    torch.set_num_threads(1)


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
