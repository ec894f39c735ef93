"""Checkpoints: one folder with a JSON description and safetensors files, loadable by any number of workers.

    checkpoints/step-000123/
        state.json                          step, epoch, configuration, fingerprint, workers, checksums
        dense.safetensors                   the network and its optimiser
        table-00000-of-00002.safetensors    rows 0, 2, 4, ... of the table and their optimiser state

A folder without a leading dot is complete: it is renamed to that name when all ranks have written.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from esmm.config import Config, ModelConfig
from esmm.distributed import World
from esmm.model import Esmm
from esmm.step import TrainStep
from schemas.errors import InputError

FORMAT = 1
FOLDER = "checkpoints"
DENSE_FILE = "dense.safetensors"
ROWS = "rows"  # name of the table's rows in a shard's file
ROWS_AT_ONCE = 1 << 19  # read in chunks, to bound memory
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class State:
    """What state.json says. sha256: of every other file, by name."""

    format: int
    step: int
    epoch: int
    world_size: int
    num_rows: int
    fingerprint: str
    config: dict[str, Any]
    sha256: dict[str, str]


# ---- Writing ---------------------------------------------------------------------------------------


def save(run: Path, config: Config, fingerprint: str, epoch: int, trained: TrainStep, world: World) -> Path:
    """Write run/checkpoints/step-N with all ranks, then remove the oldest beyond `train.keep_checkpoints`."""
    final = run / FOLDER / f"step-{trained.step:06d}"
    partial = final.with_name(f".{final.name}.partial")
    world.on_first(lambda: _make_empty(partial))
    shard_name = table_file(world.rank, world.size)
    save_file(_table_tensors(trained), partial / shard_name)
    digest = torch.frombuffer(bytearray(_sha256(partial / shard_name)), dtype=torch.uint8).unsqueeze(0)
    digests = world.gather_to_first(digest, "checksums")
    if digests is not None:
        save_file(_dense_tensors(trained), partial / DENSE_FILE)
        sha256 = {table_file(i, world.size): bytes(row.tolist()).hex() for i, row in enumerate(digests)}
        sha256[DENSE_FILE] = _sha256(partial / DENSE_FILE).hex()
        num_rows = trained.model.embedding.num_rows
        state = State(
            FORMAT, trained.step, epoch, world.size, num_rows, fingerprint, config.model_dump(), sha256
        )
        (partial / "state.json").write_text(json.dumps(asdict(state), indent=2) + "\n")
        partial.rename(final)
        _remove_old(run, config.train.keep_checkpoints)
    world.barrier()
    return final


def table_file(shard: int, num_shards: int) -> str:
    return f"table-{shard:05d}-of-{num_shards:05d}.safetensors"


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _table_tensors(trained: TrainStep) -> dict[str, Tensor]:
    tensors = {ROWS: trained.model.embedding.table, **trained.sparse.state}
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _dense_tensors(trained: TrainStep) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in trained.model.network.named_parameters():
        tensors[f"network.{name}"] = parameter.detach().cpu()
        for key in ADAM_STATE:
            tensors[f"adam.{name}.{key}"] = trained.dense.state[parameter][key].cpu()
    return tensors


def _remove_old(run: Path, keep: int) -> None:
    for folder in _complete(run)[:-keep]:
        shutil.rmtree(folder)


# ---- Reading ---------------------------------------------------------------------------------------


def _complete(run: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((run / FOLDER).glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))


def latest(run: Path) -> Path:
    """The newest complete checkpoint of a run, or an `InputError`."""
    found = _complete(run)
    if not found:
        raise InputError(f"{run / FOLDER}: expected a checkpoint (step-...), found none. Train again.")
    return found[-1]


def read_state(checkpoint: Path) -> State:
    """The description of a checkpoint, or an `InputError`."""
    path = checkpoint / "state.json"
    try:
        content = json.loads(path.read_text())
        if content.get("format") != FORMAT:
            raise InputError(f"{path}: expected checkpoint format {FORMAT}, found {content.get('format')}.")
        return State(**content)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected the description of a checkpoint ({error}). Train again."
        ) from error


def require_fit(checkpoint: Path, state: State, model: ModelConfig, fingerprint: str, num_rows: int) -> None:
    """Stop unless the checkpoint is of this model and of samples with this fingerprint."""
    found = {**state.config["model"], "samples fingerprint": state.fingerprint, "table rows": state.num_rows}
    expected = {**model.model_dump(), "samples fingerprint": fingerprint, "table rows": num_rows}
    differing = [
        f"{key}: expected {expected.get(key)}, found {found.get(key)}"
        for key in sorted({*found, *expected})
        if expected.get(key) != found.get(key)
    ]
    if differing:
        raise InputError(
            f"{checkpoint}: a checkpoint of another model or other samples ({'; '.join(differing)}). "
            "Use the run that was trained on samples built with this configuration."
        )


def load_model(checkpoint: Path, state: State, model: Esmm) -> None:
    """Fill the network, and this rank's rows of the table from whichever shards hold them."""
    world = model.embedding.world
    _check_sums(checkpoint, state, world)
    dense = _read_dense(checkpoint)
    for name, parameter in model.network.named_parameters():
        parameter.data.copy_(dense[f"network.{name}"])
    _fill_rows(checkpoint, state, world, {ROWS: model.embedding.table})


def load_training(checkpoint: Path, state: State, trained: TrainStep) -> None:
    """Fill model and optimisers, as they were when the checkpoint was written."""
    load_model(checkpoint, state, trained.model)
    _fill_rows(checkpoint, state, trained.world, trained.sparse.state)
    dense = _read_dense(checkpoint)
    for name, parameter in trained.model.network.named_parameters():
        trained.dense.state[parameter] = {
            key: dense[f"adam.{name}.{key}"].to(parameter.device) for key in ADAM_STATE
        }
    trained.step = state.step


def rows_in_common(
    shard: int, num_shards: int, start: int, stop: int, rank: int, world_size: int
) -> tuple[Tensor, Tensor]:
    """Which of the rows start..stop-1 of a shard belong to a rank, and where they lie there.

    Local row j of shard s of N is global row s + N*j, and global row g is local row g // W of rank g % W.
    """
    rows = shard + num_shards * torch.arange(start, stop)
    mine = (rows % world_size == rank).nonzero().squeeze(1)
    return mine, rows[mine].div(world_size, rounding_mode="floor")


def _fill_rows(checkpoint: Path, state: State, world: World, targets: dict[str, Tensor]) -> None:
    for shard in range(state.world_size):
        path = checkpoint / table_file(shard, state.world_size)
        for name, target in targets.items():
            for start, chunk in _chunks(path, name):
                stop = start + chunk.shape[0]
                mine, local = rows_in_common(shard, state.world_size, start, stop, world.rank, world.size)
                target[local.to(target.device)] = chunk[mine].to(target.device)


def _chunks(path: Path, name: str) -> Iterator[tuple[int, Tensor]]:
    """A tensor of a file in runs of rows, each with the number of its first row."""
    with _opened(path) as file:
        names = file.keys()
        if name not in names:
            raise InputError(f"{path}: expected a tensor {name}, found {', '.join(names)}.")
        whole = file.get_slice(name)
        for start in range(0, whole.get_shape()[0], ROWS_AT_ONCE):
            yield start, whole[start : start + ROWS_AT_ONCE]


def _read_dense(checkpoint: Path) -> dict[str, Tensor]:
    with _opened(checkpoint / DENSE_FILE) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: expected a safetensors file ({error}). Train again.") from error


def _check_sums(checkpoint: Path, state: State, world: World) -> None:
    """Every file is what it was when written; the ranks share the reading."""
    for name, expected in list(state.sha256.items())[world.rank :: world.size]:
        path = checkpoint / name
        if not path.is_file():
            raise InputError(f"{path}: file not found, but state.json names it. Restore it or train again.")
        if _sha256(path).hex() != expected:
            raise InputError(
                f"{path}: damaged, its SHA-256 is not that in state.json. Restore it or train again."
            )
