"""Is there room for the table? Asked before it is made: Linux promises memory first and kills later."""

import math
from pathlib import Path

import psutil
import torch

from esmm.config import Config, SparseOptimizerConfig
from esmm.training.sparse_optimizer import make_sparse_optimizer
from esmm.workers.distributed import World
from schemas.errors import InputError

BYTES = 4  # of a float32
GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup")


def require_room(config: Config, num_rows: int, training: bool, world: World) -> None:
    """Stop where the rows of the workers on this machine, with their optimiser state, exceed its memory."""
    dim = config.model.embedding_dim
    state = state_numbers_per_row(config.optimizer.sparse, dim) if training else 0
    on_gpu = world.device.type == "cuda"
    sharing = 1 if on_gpu else world.local_size
    rows = -(-num_rows // world.size) * sharing
    available = torch.cuda.mem_get_info(world.device)[0] if on_gpu else available_bytes()
    needed = rows * (dim + state) * BYTES
    if needed <= available:
        return
    least = math.ceil(num_rows * (dim + state) * BYTES / available * sharing)
    raise InputError(
        f"the embedding table does not fit: {num_rows} rows x ({dim} numbers + {state} of "
        f"optimizer.sparse) x {BYTES} bytes / {world.size} worker(s) x {sharing} sharing this memory = "
        f"{needed / GIB:.1f} GiB; available: {available / GIB:.1f} GiB. Take a smaller model.embedding_dim, "
        f"samples with fewer buckets, or about {least} workers on machines like this one."
    )


def state_numbers_per_row(config: SparseOptimizerConfig, dim: int) -> int:
    """Numbers that the sparse optimiser keeps for each row."""
    one_row = make_sparse_optimizer(config, 1, dim, torch.device("cpu"))
    return sum(tensor.numel() for tensor in one_row.state.values())


def available_bytes() -> int:
    """Memory that processes can still take here: of the machine, or of the container where that is less."""
    machine = int(psutil.virtual_memory().available)
    limits = {
        CGROUP / "memory.max": CGROUP / "memory.current",
        CGROUP / "memory/memory.limit_in_bytes": CGROUP / "memory/memory.usage_in_bytes",
    }
    free = [
        int(limit.read_text()) - int(used.read_text())
        for limit, used in limits.items()
        if limit.exists() and used.exists() and limit.read_text().strip() != "max"
    ]
    return min([machine, *free])
