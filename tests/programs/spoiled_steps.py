"""Takes four steps of which rank 1 spoils the third, and asks the guard: used by training/test_divergence.py.

horovodrun -np 2 python -m tests.programs.spoiled_steps FOLDER
"""

import random
import sys
from dataclasses import replace
from pathlib import Path

from esmm.batch import Batch
from esmm.config import Config
from esmm.training.divergence import Guard
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.workers.process import run
from esmm.workers.world import World
from tests.fixtures.plain_batches import few_rows, random_batch, to_batch

NUM_ROWS, IMPRESSIONS, SPOILED = 60, 20, 3
CONFIG = Config.model_validate({"model": {"embedding_dim": 4, "towers": [8, 4]}})


def make_trained(world: World) -> TrainStep:
    model = make_model(CONFIG.model, few_rows(NUM_ROWS), world)
    initialise(model, CONFIG)
    return TrainStep(CONFIG, model, world)


def make_batch(seed: int, world_size: int = 1) -> Batch:
    plain = random_batch(random.Random(seed), 5, IMPRESSIONS, NUM_ROWS)
    return to_batch(plain, NUM_ROWS, world_size)


def spoil(batch: Batch, world_size: int = 1) -> Batch:
    """One weight of one impression becomes infinite."""
    weights = batch.bags.weights.clone()
    weights[len(batch.user.ids) + 3] = float("inf")
    bags = replace(batch.bags, weights=weights)
    return replace(batch, bags=bags).with_request(NUM_ROWS, world_size)


def take_steps(folder: Path, world: World) -> None:
    """Rank r has the batches of seeds 10 * r + step."""
    trained, guard = make_trained(world), Guard(folder, world)
    for step in range(1, 5):
        batch = make_batch(10 * world.rank + step, world.size)
        if step == SPOILED and world.rank == world.size - 1:
            batch = spoil(batch, world.size)
        losses = trained(batch, IMPRESSIONS * world.size)
        guard.watch(step, batch, losses, [trained.gradient, trained.row_squares])
    guard.check()


if __name__ == "__main__":
    run(lambda world: take_steps(Path(sys.argv[1]), world))
