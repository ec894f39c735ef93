"""Filling a model from a checkpoint's files, with any number of workers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cli.errors import InputError
from esmm.checkpoints.files import DENSE_FILE, table_file
from esmm.checkpoints.state import State
from esmm.embedding.optimizers import STEPS_BEFORE
from esmm.embedding.sharded_table import owned_rows
from esmm.model.model import Model
from esmm.training.train_step import TrainStep
from esmm.workers.world import World

ROWS = "rows"  # name of the table's rows in a shard's file
ROWS_AT_ONCE = 1 << 19  # read in chunks, to bound memory


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
            for start, chunk in tensor_chunks(path, name):
                stop = start + chunk.shape[0]
                mine, local = rows_in_common(shard, state.world_size, start, stop, world.rank, world.size)
                target[local.to(target.device)] = chunk[mine].to(target.device)


def tensor_names(path: Path) -> list[str]:
    """What a safetensors file holds, or counts as holding: see `tensor_chunks`."""
    with _opened(path) as file:
        names = list(file.keys())
    return [*names, STEPS_BEFORE] if "mean" in names and STEPS_BEFORE not in names else names


def tensor_chunks(path: Path, name: str) -> Iterator[tuple[int, Tensor]]:
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
