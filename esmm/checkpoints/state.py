"""Checkpoints: one folder with a JSON description and safetensors files, loadable by any number of workers.

    checkpoints/step-000123/
        state.json                          see `State`
        dense.safetensors                   the network and its optimiser
        table-00000-of-00002.safetensors    rows 0, 2, 4, ... of the table and their optimiser state

`save_checkpoint` writes them, `choose_checkpoint` finds the one to use. A folder without a
leading dot is complete: it gets that name when all its files are on the disk. `state.json` holds their
checksums and its own.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cli.errors import InputError
from esmm.config import Config, ModelConfig
from esmm.data.schedule import Position
from esmm.embedding.optimizers import STEPS_BEFORE
from esmm.embedding.sharded_table import owned_rows
from esmm.model.model import Model
from esmm.training.progress import Progress
from esmm.training.train_step import TrainStep
from esmm.workers.world import AgreedError, World

FORMAT = 2
FOLDER = "checkpoints"
STATE_FILE = "state.json"
DENSE_FILE = "dense.safetensors"
ROWS = "rows"  # name of the table's rows in a shard's file
ROWS_AT_ONCE = 1 << 19  # read in chunks, to bound memory


class DamagedError(AgreedError):
    """A checkpoint is not what was written. One that cannot be read is another matter: it may be whole."""


@dataclass(frozen=True)
class State:
    """What state.json says.

    step: taken over the whole run. position: of the data that comes next. num_rows, world_size: of the
    table and of the shards it lies in. scale: the true rows are scale times the stored ones. fingerprint:
    of the samples' layout; schema: what it is made of, see `schema_of`. samples: digest of the training
    files. sha256: of every other file, by name.

    Format 1 had no position, schema and samples: it is good for predictions only.
    """

    format: int
    step: int
    world_size: int
    num_rows: int
    fingerprint: str
    config: Config
    sha256: dict[str, str]
    position: Position
    schema: dict[str, Any] | None = None
    samples: str = ""
    scale: float = 1.0
    progress: Progress = field(default_factory=Progress)

    @property
    def epoch(self) -> int:
        """The epoch that the last step belongs to."""
        return self.position.epoch if self.position.legs else self.position.epoch - 1

    def to_json(self) -> str:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["config"] = self.config.model_dump()
        content["position"], content["progress"] = asdict(self.position), asdict(self.progress)
        return json.dumps({**content, "checksum": _checksum(content)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "State":
        """Of either format; raises what a damaged description makes Python raise, or `ValueError`."""
        checksum, version = content.pop("checksum", None), content["format"]
        if version == 1:
            content["position"] = {"epoch": content.pop("epoch") + 1, "legs": []}
        elif version != FORMAT:
            raise ValueError(f"expected format {FORMAT} or 1, found {version}")
        elif checksum != _checksum(content):
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


def sha256_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def table_file(shard: int, num_shards: int) -> str:
    return f"table-{shard:05d}-of-{num_shards:05d}.safetensors"


def folder_of(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:06d}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def complete(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    folder = run / FOLDER
    with reading(folder):
        names = os.listdir(folder) if is_there(folder) else []
    found = (name for name in names if name.startswith("step-") and name.removeprefix("step-").isdigit())
    return sorted((folder / name for name in found), key=step_of)


def latest(run: Path) -> Path:
    """The newest complete checkpoint of a run, or an `InputError`."""
    found = complete(run)
    if not found:
        raise InputError(f"{run / FOLDER}: expected a checkpoint (step-...), found none. Train again.")
    return found[-1]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What keeps a file or folder from being read, such as a network folder that is away, says nothing of it:
    an `InputError`, and never a `DamagedError`, for which others are taken or a run begins anew.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Nothing was changed. Check the disk or the network "
            "folder and its permissions, then try again."
        ) from error


def is_there(path: Path) -> bool:
    """Unlike `Path.exists` it does not take a folder that cannot be looked into for an empty one."""
    with reading(path):
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
        return True


def read_state(checkpoint: Path) -> State:
    """The description of a checkpoint, or a `DamagedError`."""
    path = checkpoint / STATE_FILE
    with reading(path):
        content = path.read_bytes()
    try:
        return State.from_json(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(
            f"{path}: expected the description of a checkpoint ({error}). Restore it or train again."
        ) from error


def require_fit(checkpoint: Path, state: State, model: ModelConfig, fingerprint: str, num_rows: int) -> None:
    """Stop unless the checkpoint is of this model and of samples with this fingerprint."""
    found = {
        **state.config.model.model_dump(),
        "samples fingerprint": state.fingerprint,
        "table rows": state.num_rows,
    }
    expected = {**model.model_dump(), "samples fingerprint": fingerprint, "table rows": num_rows}
    differing = [
        f"{key}: expected {expected[key]}, found {found[key]}"
        for key in sorted(expected)
        if expected[key] != found[key]
    ]
    if differing:
        raise InputError(
            f"{checkpoint}: a checkpoint of another model or other samples ({'; '.join(differing)}). "
            "Use the run that was trained on samples built with this configuration."
        )


# ---- Loading ---------------------------------------------------------------------------------------


def load_model(checkpoint: Path, state: State, model: Model) -> None:
    """Fill the network, and this rank's rows of the table from whichever shards hold them."""
    model.network.load_state_dict(read_network(checkpoint))
    _fill_rows(checkpoint, state, model.embedding.world, {ROWS: model.embedding.table})
    model.embedding.scale = state.scale


def load_training(checkpoint: Path, state: State, trained: TrainStep) -> None:
    """Fill model and optimisers, as they were when the checkpoint was written."""
    load_model(checkpoint, state, trained.model)
    _fill_rows(checkpoint, state, trained.world, trained.sparse.state)
    dense = read_dense(checkpoint)
    for name, parameter in trained.model.network.named_parameters():
        prefix = f"optimizer.{name}."
        trained.dense.state[parameter] = {
            key.removeprefix(prefix): tensor.to(parameter.device)
            for key, tensor in dense.items()
            if key.startswith(prefix)
        }
    trained.step = state.step


def rows_in_common(
    shard: int, num_shards: int, start: int, stop: int, rank: int, world_size: int
) -> tuple[Tensor, Tensor]:
    """Which of a shard's local rows start..stop-1 a rank owns, from start, and where it keeps them.

    Local row j of shard s of N is global row s + N*j, and global row g is local row g // W of rank g % W.
    """
    return owned_rows(shard + num_shards * torch.arange(start, stop), rank, world_size)


def _fill_rows(checkpoint: Path, state: State, world: World, targets: dict[str, Tensor]) -> None:
    for shard in range(state.world_size):
        path = checkpoint / table_file(shard, state.world_size)
        for name, target in targets.items():
            for start, chunk in chunks(path, name):
                stop = start + chunk.shape[0]
                mine, local = rows_in_common(shard, state.world_size, start, stop, world.rank, world.size)
                target[local.to(target.device)] = chunk[mine].to(target.device)


def tensor_names(path: Path) -> list[str]:
    """What a safetensors file holds, or counts as holding: see `chunks`."""
    with _opened(path) as file:
        names = list(file.keys())
    return [*names, STEPS_BEFORE] if "mean" in names and STEPS_BEFORE not in names else names


def chunks(path: Path, name: str) -> Iterator[tuple[int, Tensor]]:
    """A tensor of a file in runs of rows, each with the number of its first row.

    Lazy Adam's `STEPS_BEFORE`, which older checkpoints lack, is 0 in them.
    """
    with _opened(path) as file:
        names = file.keys()
        lacking = name not in names
        if lacking and name != STEPS_BEFORE:
            raise InputError(f"{path}: expected a tensor {name}, found {', '.join(names)}.")
        whole = file.get_slice(ROWS if lacking else name)
        for start in range(0, whole.get_shape()[0], ROWS_AT_ONCE):
            chunk = whole[start : start + ROWS_AT_ONCE]
            yield start, torch.zeros(chunk.shape[0]) if lacking else chunk


def read_dense(checkpoint: Path) -> dict[str, Tensor]:
    """The network's tensors, `network.NAME`, and its optimiser's, `optimizer.PARAMETER.NAME`."""
    with _opened(checkpoint / DENSE_FILE) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def read_network(checkpoint: Path) -> dict[str, Tensor]:
    """The network's tensors by their names in its `state_dict`."""
    prefix = "network."
    dense = read_dense(checkpoint)
    return {name.removeprefix(prefix): dense[name] for name in dense if name.startswith(prefix)}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: expected a safetensors file ({error}). Train again.") from error
