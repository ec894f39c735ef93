"""What a checkpoint says of itself: `state.json`, with the checksums of all files and its own.

Loadable by any number of workers. `writing.save` writes checkpoints, `choosing` finds the one to use and
`loading` fills a model from it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cli.errors import InputError
from esmm.checkpoints.files import STATE_FILE, reading
from esmm.config import Config
from esmm.data.schedule import Position
from esmm.model_config import ModelConfig
from esmm.training.progress import Progress
from esmm.workers.world import AgreedError
from schemas.manifest import Manifest, changes, numbering

FORMAT = 2


class DamagedError(AgreedError):
    """A checkpoint is not what was written. One that cannot be read is another matter: it may be whole."""


class UnfitError(AgreedError):
    """A checkpoint is of another model, other samples or another format than what it is wanted for."""


@dataclass(frozen=True)
class State:
    """What state.json says.

    step: taken over the whole run. position: of the data that comes next. num_rows, world_size: of the
    table and of the shards it lies in. scale: the true rows are scale times the stored ones. fingerprint:
    of the samples' layout; schema: what it is made of, see `schemas.manifest.numbering`. samples: digest
    of the training files. sha256: of every other file, by name.
    """

    format: int
    step: int
    world_size: int
    num_rows: int
    fingerprint: str
    config: Config
    sha256: dict[str, str]
    position: Position
    schema: dict[str, Any]
    samples: str
    scale: float = 1.0
    progress: Progress = field(default_factory=Progress)

    @property
    def epoch(self) -> int:
        """The epoch that the last step belongs to."""
        return self.position.epoch if self.position.legs else self.position.epoch - 1

    def to_json(self) -> str:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["config"] = self.config.model_dump()
        content["position"] = asdict(self.position)
        content["progress"] = asdict(self.progress)
        return json.dumps({**content, "checksum": _checksum(content)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "State":
        """Raises what a damaged description makes Python raise, or `ValueError`."""
        checksum = content.pop("checksum", None)
        if checksum != _checksum(content):
            raise ValueError("it is not what was written: its checksum differs")
        content["config"] = Config.model_validate(_with_eps(content["config"]))
        content["position"] = Position.from_json(content["position"])
        content["progress"] = Progress(**content.get("progress", {}))
        return cls(**content)


def _with_eps(config: dict[str, Any]) -> dict[str, Any]:
    """Before it was an option eps was this number: a resume tells where it is another now."""
    optimizer = config["optimizer"]
    return {**config, "optimizer": {**optimizer, "sparse": {"eps": 1e-8, **optimizer["sparse"]}}}


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_state(checkpoint: Path) -> State:
    """The description of a checkpoint; a `DamagedError`, or an `UnfitError` where it has another format."""
    path = checkpoint / STATE_FILE
    with reading(path):
        text = path.read_bytes()
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise UnfitError(
                f"{checkpoint}: expected a checkpoint of format {FORMAT}, found format {content['format']}: "
                "another version has written it. Train again, or use that version."
            )
        return State.from_json(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(
            f"{path}: expected the description of a checkpoint ({error}). Restore it or train again."
        ) from error


def require_fit(checkpoint: Path, state: State, model: ModelConfig, samples: Manifest) -> None:
    """Stop unless the checkpoint is of this model and of samples with the same columns and buckets."""
    found = state.config.model.model_dump()
    expected = model.model_dump()
    differing = [
        f"{key}: expected {expected[key]}, found {found[key]}"
        for key in sorted(expected)
        if expected[key] != found[key]
    ]
    if state.fingerprint != samples["fingerprint"]:
        differing += changes(state.schema, numbering(samples)) or ["another column layout"]
    if differing:
        raise InputError(
            f"{checkpoint}: a checkpoint of another model or other samples ({'; '.join(differing)}). "
            "Use the run that was trained on samples built with this configuration."
        )
