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
from esmm.model.models import network_class
from esmm.model_config import ModelConfig

FOLDER = Path("configs/models")
NAME = "model.name="
# The network of the ESMM paper, which presets change: a configuration's own may be another.
PLAIN = tuple(f"model.{name}={json.dumps(value)}" for name, value in ModelConfig().model_dump().items())
REFERENCE = "esmm"  # what the others are compared with, and the first to be trained


@dataclass(frozen=True)
class Preset:
    """name: of the file. about: its first line, a comment. settings: `--set` of esmm.train."""

    name: str
    about: str
    settings: tuple[str, ...]
    sha256: str

    @property
    def needs_actions(self) -> bool:
        """Whether samples must tell of actions."""
        return network_class(self.model).ACTIONS

    @property
    def model(self) -> str:
        """Its `model.name`."""
        named = [text for text in self.settings if text.startswith(NAME)]
        return str(json.loads(named[0].removeprefix(NAME)))


def read_presets(names: list[str]) -> list[Preset]:
    """The named presets; without names all that need no actions. The reference comes first, as the others
    need its figures."""
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    for name in names:
        if name not in known:
            raise InputError(
                f"--models {name}: expected a file of that name in {FOLDER}, found none"
                f"{did_you_mean(name, known)}. There are {', '.join(known)}."
            )
    found = [read_preset(FOLDER / f"{name}.yaml") for name in names or known]
    others = [one for one in found if one.name != REFERENCE and (names or not one.needs_actions)]
    return [read_preset(FOLDER / f"{REFERENCE}.yaml"), *others]


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
