"""What two workers receive from each other: used by workers/test_world.py.

horovodrun -np 2 python -m tests.programs.collectives OUT
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from esmm.checkpoints.state import DamagedError
from esmm.workers.world import World


def collect(world: World) -> dict[str, Any]:
    """Every collective once, the asynchronous ones three at a time."""
    mine = torch.arange(4.0) + 10 * world.rank
    flat, matrix = mine.clone(), torch.full((2, 2), 1.0 + world.rank)
    first, second = world.start_all_reduce(flat, "first"), world.start_all_reduce(matrix, "second")
    counts = [[1, 3], [2, 0]][world.rank]
    rows = world.start_all_to_all(mine[: sum(counts)].reshape(-1, 1), counts, "rows")
    received, received_counts = rows.wait()
    parts = [torch.tensor([1.0]) * (1 + world.rank), torch.ones(2, 1)]
    world.all_reduce_(parts, "parts")
    gathered = world.gather(mine[: 1 + world.rank], "gathered")
    return {
        "in_place": second.wait() is matrix and first.wait() is flat,
        "sums": [flat.tolist(), matrix.tolist()],
        "received": received.tolist(),
        "counts": received_counts,
        "parts": [part.tolist() for part in parts],
        "gathered": None if gathered is None else gathered.tolist(),
        "on_rank_zero": world.on_rank_zero(lambda: f"by {world.rank}"),
        "agreed": agreed_message(world),
    }


def agreed_message(world: World) -> str:
    try:
        with world.agree():
            if not world.is_rank_zero:
                raise DamagedError("bad news")
    except DamagedError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    started = World.start()
    found = collect(started)
    found |= {"local": [started.local_rank, started.local_size], "threads": torch.get_num_threads()}
    found |= {"timeout": os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"], "admitted": started.admit()}
    (Path(sys.argv[1]) / f"{started.rank}.json").write_text(json.dumps(found))
