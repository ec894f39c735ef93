"""Is there room for the table? Asked before it is made: Linux promises memory first and kills later."""

import math

import psutil
import torch

from cli.errors import InputError
from esmm.config import Config, SparseOptimizerConfig
from esmm.embedding.optimizers import make_sparse_optimizer
from esmm.model.models import network_class
from esmm.workers import control_groups
from esmm.workers.world import World

BYTES = 4  # of a float32
GIB = 1 << 30


def require_room(config: Config, num_rows: int, training: bool, world: World) -> None:
    """Stop where the rows of the workers that share a memory, with their optimiser state, exceed it."""
    kind = network_class(config.model.name)
    tables, dim = kind.TABLES, kind.row_width(config.model)
    state = state_numbers_per_row(config.optimizer.sparse, dim, tables) if training else 0
    available, sharing = room(world)
    rows = -(-num_rows // world.size) * sharing
    needed = rows * (dim + state) * BYTES
    if needed <= available:
        return
    apart = f"Model {config.model.name} has a table for each of {tables} tasks. " if tables > 1 else ""
    least = math.ceil(num_rows * (dim + state) * BYTES / max(available, 1) * sharing)
    raise InputError(
        f"the embedding table does not fit: {num_rows} rows x ({dim} numbers + {state} of "
        f"optimizer.sparse) x {BYTES} bytes / {world.size} worker(s) x {sharing} sharing this memory = "
        f"{needed / GIB:.1f} GiB; available: {available / GIB:.1f} GiB. {apart}Take a smaller "
        f"model.embedding_dim, samples with fewer buckets, or about {least} workers on such machines."
    )


def state_numbers_per_row(config: SparseOptimizerConfig, dim: int, tables: int = 1) -> int:
    """Numbers that the sparse optimiser keeps for each row."""
    one_row = make_sparse_optimizer(config, 1, 1, dim, torch.device("cpu"), tables)
    return sum(tensor.numel() for tensor in one_row.state.values())


def room(world: World) -> tuple[int, int]:
    """The memory that this worker's table has to fit into: its free bytes, and how many workers share it.

    Of the machine and the control groups that the worker lives in (a container, a batch job) the one that
    leaves the least to each worker.
    """
    if world.device.type == "cuda":
        return torch.cuda.mem_get_info(world.device)[0], 1
    rooms = [(int(psutil.virtual_memory().available), world.local_size)]
    for group, free in control_groups.free_bytes(control_groups.own_group()).items():
        rooms.append((free, world.workers_in(group)))
    return min(rooms, key=lambda found: found[0] / found[1])
