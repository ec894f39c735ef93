"""Starting a run from another run's numbers, although the samples' schema or the model has changed.

A field's rows are taken over, with their optimiser state, where its ids still have the same buckets; a
tensor of the network where name and shape are the same. All else keeps its fresh start values, and is named.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from esmm.checkpoints import choosing
from esmm.checkpoints.files import table_file
from esmm.checkpoints.loading import ROWS, read_network, tensor_chunks, tensor_names
from esmm.checkpoints.state import State
from esmm.checkpoints.writing import Origin
from esmm.embedding.bags import field_offsets
from esmm.embedding.optimizers import STEPS_BEFORE
from esmm.embedding.sharded_table import owned_rows
from esmm.training.train_step import TrainStep
from esmm.workers.world import AgreedError, World
from schemas.fields import FIELDS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Move:
    """From the rows of one table to those of another.

    starts: first rows of the old fields [F]. shifts: what to add to their rows [F]. taken: whether to [F].
    """

    starts: Tensor
    shifts: Tensor
    taken: Tensor

    @classmethod
    def between(cls, old: dict[str, int], new: dict[str, int], taken: list[str]) -> Self:
        """old, new: buckets of the fields. taken: names of the fields to move."""
        before = field_offsets(old)
        after = field_offsets(new)
        return cls(
            torch.tensor([before[field.name] for field in FIELDS]),
            torch.tensor([after[field.name] - before[field.name] for field in FIELDS]),
            torch.tensor([field.name in taken for field in FIELDS]),
        )

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which of old rows int64 [n] are moved (positions in it), and where to."""
        owner = torch.searchsorted(self.starts, rows, right=True) - 1
        kept = self.taken[owner].nonzero().squeeze(1)
        return kept, rows[kept] + self.shifts[owner[kept]]


def load(other: Path, origin: Origin, trained: TrainStep) -> None:
    """Take over what fits from the newest good checkpoint of another run; one line says what does not.

    All ranks call it together. `InputError` where nothing fits.
    """
    world = trained.world
    network = trained.model.network
    path, state = choosing.newest_good(other, world)
    refused = refused_fields(state.schema, origin.schema)
    dim = trained.model.embedding.dim
    old_dim = state.config.model.embedding_dim
    if dim != old_dim:
        refused = {field.name: f"embedding_dim {old_dim} -> {dim}" for field in FIELDS}
    with world.agree():
        left_out = _take_tensors(path, network)
    taken = [field.name for field in FIELDS if field.name not in refused]
    if not taken and len(left_out) == len(network.state_dict()):
        raise AgreedError(f"{path}: nothing of it fits ({_listed(refused)}). Start without --warm-start.")
    if taken:
        move = Move.between(state.schema["buckets"], origin.schema["buckets"], taken)
        with world.agree():
            left_out += _take_rows(path, state, move, trained)
    log.info(
        "warm start from %s: rows of %d of %d fields; fresh: %s",
        path,
        len(taken),
        len(FIELDS),
        "; ".join(text for text in (_listed(refused), ", ".join(left_out)) if text) or "nothing",
    )


def refused_fields(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Fields whose ids have other rows in the new schema, with the reason."""
    reasons = {}
    for option in ("hash", "hash_seed", "id_table"):
        if old[option] != new[option]:
            return {field.name: f"{option} {old[option]} -> {new[option]}" for field in FIELDS}
    for field in FIELDS:
        before = old["buckets"].get(field.name)
        after = new["buckets"][field.name]
        if before != after:
            reasons[field.name] = f"buckets {before} -> {after}"
    return reasons


def _listed(refused: dict[str, str]) -> str:
    """Fields by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in refused.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())


def _take_tensors(path: Path, network: nn.Module) -> list[str]:
    """Copy the network's tensors that have kept their shape; returns the others."""
    old = read_network(path)
    left_out = []
    for name, tensor in network.state_dict().items():
        if name in old and old[name].shape == tensor.shape:
            tensor.copy_(old[name])
        else:
            found = list(old[name].shape) if name in old else "absent"
            left_out.append(f"{name} ({found} -> {list(tensor.shape)})")
    return left_out


def _take_rows(path: Path, state: State, move: Move, trained: TrainStep) -> list[str]:
    """Copy rows and their optimiser state; returns the parts of the state that the checkpoint lacks."""
    targets = {ROWS: trained.model.embedding.table, **trained.sparse.state}
    stored = tensor_names(path / table_file(0, state.world_size))
    for shard in range(state.world_size):
        file = path / table_file(shard, state.world_size)
        for name in targets.keys() & stored:
            for start, chunk in tensor_chunks(file, name):
                rows = shard + state.world_size * torch.arange(start, start + chunk.shape[0])
                _place(targets[name], _continued(name, chunk, state), *move(rows), trained.world)
    return [f"optimizer state {name}" for name in targets if name not in stored]


def _continued(name: str, chunk: Tensor, state: State) -> Tensor:
    """What a new run goes on with: the true rows, and moments that are older than its own step tells."""
    if name == ROWS:
        return chunk * state.scale
    return chunk + state.step if name == STEPS_BEFORE else chunk


def _place(target: Tensor, values: Tensor, kept: Tensor, rows: Tensor, world: World) -> None:
    """Put values[kept], which are rows `rows` of the whole table, where this rank keeps its own of them."""
    mine, local = owned_rows(rows, world.rank, world.size)
    target[local.to(target.device)] = values[kept[mine]].to(target.device)
