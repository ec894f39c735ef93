"""Starting a run from another run's numbers, although the samples' schema or the model has changed.

A field's rows are taken over, with their optimiser state, where a field of that name had the same buckets;
a tensor of the network where name and shape are the same, and of one that reads the fields what belongs to
those that both runs have. All else keeps its fresh start values, and is named.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from esmm.checkpoints import choosing
from esmm.checkpoints.files import table_file
from esmm.checkpoints.input_axes import Inputs, Labels, move
from esmm.checkpoints.loading import ROWS, read_network, tensor_chunks, tensor_names
from esmm.checkpoints.state import State
from esmm.checkpoints.writing import Origin
from esmm.embedding.bags import field_offsets
from esmm.embedding.optimizers import STEPS_BEFORE
from esmm.embedding.sharded_table import owned_rows
from esmm.model.models import network_class
from esmm.model_config import ModelConfig
from esmm.training.train_step import TrainStep
from esmm.workers.world import AgreedError, World
from schemas import manifest
from schemas.schema import Schema

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
    def between(cls, old: Schema, new: Schema, taken: list[str]) -> Self:
        """taken: names of the fields to move, which both schemas have."""
        before = field_offsets(old.buckets)
        after = field_offsets(new.buckets)
        return cls(
            torch.tensor(list(before.values())),
            torch.tensor([after[name] - start if name in taken else 0 for name, start in before.items()]),
            torch.tensor([name in taken for name in before]),
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
    old = manifest.schema_of(state.schema)
    new = manifest.schema_of(origin.schema)
    refused = refused_fields(state, origin)
    with world.agree():
        inputs = (
            Inputs.of(old, state.config.model.embedding_dim),
            Inputs.of(new, origin.config.model.embedding_dim),
        )
        left_out = _take_tensors(path, network, *inputs, _other_numbers(old, new))
    taken = [field.name for field in new.fields if field.name not in refused]
    if not taken and len(left_out) == len(network.state_dict()):
        raise AgreedError(f"{path}: nothing of it fits ({_listed(refused)}). Start without --warm-start.")
    if taken:
        with world.agree():
            left_out += _take_rows(path, state, Move.between(old, new, taken), trained)
    log.info(
        "warm start from %s: rows of %d of %d fields; fresh: %s%s",
        path,
        len(taken),
        len(new.fields),
        "; ".join(text for text in (_listed(refused), ", ".join(left_out)) if text) or "nothing",
        _left_behind(old, new),
    )


def refused_fields(state: State, origin: Origin) -> dict[str, str]:
    """Fields of the new schema whose ids had other rows in the old one, or none; with the reason."""
    before = manifest.schema_of(state.schema).buckets
    after = manifest.schema_of(origin.schema).buckets
    old_row, new_row = (row_of(model) for model in (state.config.model, origin.config.model))
    if old_row != new_row:
        return dict.fromkeys(after, f"rows of {old_row} -> {new_row}")
    if changes := manifest.hash_changes(state.schema, origin.schema):
        return dict.fromkeys(after, ", ".join(changes))
    return {
        name: f"buckets {before[name]} -> {size}" if name in before else "not in the other run"
        for name, size in after.items()
        if before.get(name) != size
    }


def row_of(model: ModelConfig) -> str:
    """What a row of its embedding holds."""
    kind = network_class(model.name)
    first_order = kind.row_width(model) - kind.TABLES * model.embedding_dim
    wide = f" and {first_order} of first order" if first_order else ""
    return f"{kind.TABLES} x {model.embedding_dim} numbers{wide}"


def _other_numbers(old: Schema, new: Schema) -> list[str]:
    """What is in the names of tensors that make vectors of a side's numbers, where these are not the same."""
    sides = {"user": (old.user_numbers, new.user_numbers)}
    sides["impression"] = (old.impression_numbers, new.impression_numbers)
    return [
        f"numbers.sides.{side}."
        for side, numbers in sides.items()
        if len({tuple(str(number.use) for number in one) for one in numbers}) > 1
    ]


def _left_behind(old: Schema, new: Schema) -> str:
    """For the line, fields of the old schema alone."""
    gone = [name for name in old.index if name not in new.index]
    return f"; not in this run: {', '.join(gone)}" if gone else ""


def _listed(refused: dict[str, str]) -> str:
    """Fields by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in refused.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())


def _take_tensors(
    path: Path, network: nn.Module, before: Inputs, after: Inputs, other_numbers: list[str]
) -> list[str]:
    """Copy the network's tensors that have kept their shape, and what others read of the fields that both
    runs have; returns what is left fresh."""
    old = read_network(path)
    left_out = []
    for name, tensor in network.state_dict().items():
        axes = before.axes(name), after.axes(name)
        if any(part in name for part in other_numbers):
            left_out.append(f"{name} (of other numbers)")
        elif name in old and axes[0] == axes[1] and old[name].shape == tensor.shape:
            tensor.copy_(old[name])
        elif name in old and axes[0] != axes[1] and move(old[name], tensor, *axes):
            left_out += _unread(name, *axes)
        else:
            found = list(old[name].shape) if name in old else "absent"
            left_out.append(f"{name} ({found} -> {list(tensor.shape)})")
    return left_out


def _unread(name: str, before: Sequence[Labels | None], after: Sequence[Labels | None]) -> list[str]:
    """How much of a tensor's inputs is new, if any is."""
    known, now = set(before[-1] or ()), after[-1] or ()
    new = sum(label not in known for label in now)
    return [f"{name} ({new} of its {len(now)} inputs)"] if new else []


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
