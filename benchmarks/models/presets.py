"""Presets: what a model needs beside the options that all models are given alike."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.errors import InputError
from cli.nearest import did_you_mean
from esmm.config import flatten

FOLDER = Path("configs/models")
REFERENCE = "esmm"  # what the others are compared with, and the first to be trained


@dataclass(frozen=True)
class Preset:
    """name: of the file. about: its first line, a comment. settings: `--set` of esmm.train."""

    name: str
    about: str
    settings: tuple[str, ...]
    sha256: str


def read_presets(names: list[str]) -> list[Preset]:
    """The named presets, all without names; the reference comes first, as the others need its figures."""
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    for name in names:
        if name not in known:
            raise InputError(
                f"--models {name}: expected a file of that name in {FOLDER}, found none"
                f"{did_you_mean(name, known)}. There are {', '.join(known)}."
            )
    others = [name for name in names or known if name != REFERENCE]
    return [read_preset(FOLDER / f"{name}.yaml") for name in (REFERENCE, *others)]


def read_preset(path: Path) -> Preset:
    text = path.read_text()
    first, *_ = text.splitlines()
    return Preset(
        name=path.stem,
        about=first.removeprefix("# ").removesuffix(" docs/models.md"),
        settings=settings_of(yaml.safe_load(text)),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def settings_of(values: dict[str, Any]) -> tuple[str, ...]:
    """Options of a file as `--set` takes them; JSON is YAML too."""
    return tuple(f"{name}={json.dumps(value)}" for name, value in flatten(values).items())
