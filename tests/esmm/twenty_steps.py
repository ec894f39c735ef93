"""Trains 20 steps on any number of workers, for test_workers.py: losses, gradient norms, checkpoints.

horovodrun -np 2 python -m tests.esmm.twenty_steps OUT
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from esmm.checkpoints import save_checkpoint
from esmm.checkpoints.save_checkpoint import Origin
from esmm.config import Config
from esmm.data.schedule import Position
from esmm.training.progress import Progress
from esmm.training.step import TrainStep, initialise, make_model
from esmm.workers.distributed import World
from tests.esmm.plain_batches import random_batch, to_batch

NUM_ROWS = 101  # odd, so that shards differ in size
STEPS, STEPS_OF_ALL = 20, 15  # after STEPS_OF_ALL only rank 0 has impressions left
OPTIMIZERS = ("rowwise_adagrad", "lazy_adam", "sgd")


def make_config(optimizer: str) -> Config:
    """SGD with all that changes gradients and rows besides: clipping, L2, weight decay.

    Lazy Adam with batch norm, whose statistics are those of all workers.
    """
    sparse: dict[str, Any] = {"name": optimizer, "learning_rate": 0.02}
    options: dict[str, Any] = {"sparse": sparse}
    if optimizer == "sgd":
        sparse |= {"learning_rate": 1.0, "l2": 0.01, "weight_decay": 0.02}
        options |= {"clip_grad_norm": 0.05, "dense": {"weight_decay": 0.1}}
    model = {"embedding_dim": 6, "towers": [16, 8], "batch_norm": optimizer == "lazy_adam"}
    return Config.model_validate({"model": model, "optimizer": options})


def train(optimizer: str, out: Path, world: World) -> None:
    """Each step's batch is the same whatever the number of workers: they share its impressions."""
    config, rng = make_config(optimizer), random.Random(1)
    model = make_model(config.model, NUM_ROWS, world)
    initialise(model, config)
    trained, losses = TrainStep(config, model, world), []
    for step in range(STEPS):
        whole = random_batch(rng, num_contexts=5, num_impressions=24, num_rows=NUM_ROWS)
        share = whole.part(world.rank, world.size)
        if step >= STEPS_OF_ALL:
            share = whole.part(0, 1) if world.is_first else whole.part(1, 1)
        sums = trained(to_batch(share, NUM_ROWS, world.size), len(whole.impressions))
        world.sum_([sums], "losses")
        losses.append([*(sums / len(whole.impressions)).tolist(), float(trained.grad_norm())])
    run = out / optimizer
    origin = Origin(config, "0" * 16, schema={}, samples="")
    save_checkpoint.save(run, origin, Position.start(2), Progress(), trained, world)
    if world.is_first:
        (run / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    started = World.start()
    for name in OPTIMIZERS:
        train(name, Path(sys.argv[1]), started)
