"""The one worker of most tests, and the type of the fixture that starts several."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from esmm.workers.world import World

PROJECT = Path(__file__).parents[2]
ONE_WORKER = World(1, 0, 0, 1, torch.device("cpu"))
Command = Callable[..., "subprocess.CompletedProcess[str]"]
