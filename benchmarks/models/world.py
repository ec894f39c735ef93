"""Samples of a planted world, drawn and built by the project's own commands; what stands there is kept."""

import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from cli.config_files import read_yaml
from cli.errors import InputError
from storage import publishing
from storage.json_files import write_json, write_text

LOG = logging.getLogger(__name__)
HALVES = ("train", "test")
TOLD = "world.json"  # how the world was drawn


def draw_world(
    out: Path, drawn: Sequence[str], valid_share: float, config: str, splits: Sequence[str] = HALVES
) -> Path:
    """Logs in `out`/raw, by options of jobs.make_demo_logs, and samples in the folder that is returned.

    valid_share: of the training half's contexts, which become split=valid. splits: the halves to build.
    """
    raw, samples = out / "raw", out / "samples"
    keep_apart(out, drawn)
    if not publishing.is_complete(str(raw)):
        run_job("jobs.make_demo_logs", "--out", str(raw), *drawn)
    for split in splits:
        logs = ["--skeleton", f"{raw}/sample_skeleton_{split}.csv"]
        logs += ["--common", f"{raw}/common_features_{split}.csv"]
        build_split(samples, split, logs, valid_share, config)
    return samples


def keep_apart(out: Path, drawn: Sequence[str]) -> None:
    """Write down how the world of a folder is drawn; an `InputError` where another stands there."""
    told = out / TOLD
    if not told.exists() and publishing.is_complete(str(out / "raw")):
        raise InputError(
            f"{out}/raw: expected {TOLD} beside it, found none. Delete the folder or give another."
        )
    if told.exists() and (found := json.loads(told.read_text())["drawn"]) != list(drawn):
        raise InputError(
            f"{told}: expected a world drawn with {shlex.join(drawn)}, found one with {shlex.join(found)}. "
            "Ask for the same, delete the folder or give another --out."
        )
    write_json(str(told), {"drawn": list(drawn)})


def build_split(samples: Path, split: str, logs: Sequence[str], valid_share: float, config: str) -> None:
    """Samples of a half, and of the training half's share that is to validate."""
    target = samples / f"split={split}"
    if publishing.is_complete(str(target)):
        return
    own = samples.parent / "samples.yaml"
    of_samples = read_yaml(config)["samples"]
    write_text(str(own), yaml.safe_dump({"samples": {**of_samples, "valid_share": valid_share}}))
    apart = ["--valid-out", str(samples / "split=valid")] if valid_share and split == "train" else []
    run_job("jobs.build_samples", *logs, "--out", str(target), "--config", str(own), *apart)


def run_job(module: str, *arguments: str) -> None:
    """A command of the project; an `InputError` with the end of what it said where it fails."""
    LOG.info("%s %s", module, shlex.join(arguments))
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{module} ended with {done.returncode}:\n{done.stderr[-2000:]}")
