"""Trains 20 steps on any number of workers, for workers/test_one_and_several.py: losses, norms, checkpoints.

horovodrun -np 2 python -m tests.programs.twenty_steps OUT
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from esmm.batch import Batch
from esmm.checkpoints import writing
from esmm.checkpoints.writing import Origin
from esmm.config import Config
from esmm.data.schedule import Position
from esmm.model_config import ModelConfig
from esmm.training.progress import Progress
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.workers.world import World
from schemas import manifest
from tests.fixtures.plain_batches import few_rows, random_batch, to_batch

NUM_ROWS = 101  # odd, so that shards differ in size
MANIFEST = manifest.build(
    schema=few_rows(NUM_ROWS), hash_seed=0, counts={}, quarantine={}, source={}, files=[]
)
STEPS, STEPS_OF_ALL = 20, 15  # after STEPS_OF_ALL only rank 0 has impressions left
IMPRESSIONS = 24  # of a step
OPTIMIZERS = ("rowwise_adagrad", "lazy_adam", "sgd", "sgd clipped", "sgd clipped unannounced")
MODELS = tuple(f"model {name}" for name in get_args(ModelConfig.model_fields["name"].annotation))
CASES = (*OPTIMIZERS, *MODELS)


def make_config(case: str) -> Config:
    """SGD with what changes gradients and rows besides: L2, weight decay, clipping.

    Lazy Adam with batch norm, whose statistics are those of all workers.
    """
    optimizer, *more = case.split()
    if optimizer == "model":
        small = {
            "name": more[0],
            "embedding_dim": 6,
            "towers": [16, 8],
            "input_norm": True,
            "cross_layers": 1,
        }
        return Config.model_validate({"model": small})
    sparse: dict[str, Any] = {"name": optimizer, "learning_rate": 0.02}
    options: dict[str, Any] = {"sparse": sparse}
    if optimizer == "sgd":
        sparse |= {"learning_rate": 1.0, "l2": 0.01, "weight_decay": 0.02}
        options |= {"dense": {"weight_decay": 0.1}}
    if "clipped" in more:
        options |= {"clip_grad_norm": 0.05}
    model: dict[str, Any] = {"embedding_dim": 6, "towers": [16, 8], "batch_norm": optimizer == "lazy_adam"}
    model |= dict.fromkeys(("input_norm", "dots", "wide"), optimizer == "rowwise_adagrad")
    return Config.model_validate({"model": model, "optimizer": options})


def batches(world: World) -> Iterator[Batch]:
    """Each step's impressions are the same whatever the number of workers: they share them."""
    rng = random.Random(1)
    for step in range(STEPS):
        whole = random_batch(rng, num_contexts=5, num_impressions=IMPRESSIONS, num_rows=NUM_ROWS)
        share = whole.part(world.rank, world.size)
        if step >= STEPS_OF_ALL:
            share = whole.part(0, 1) if world.is_rank_zero else whole.part(1, 1)
        yield to_batch(share, NUM_ROWS, world.size)


def train(case: str, out: Path, world: World) -> None:
    """As training does it, each batch's request sent while the step before it runs, or without."""
    config = make_config(case)
    model = make_model(config.model, few_rows(NUM_ROWS), world)
    initialise(model, config)
    trained, losses = TrainStep(config, model, world), []
    for batch in batches(world) if "unannounced" in case else trained.ahead(batches(world)):
        sums = trained(batch, IMPRESSIONS)
        world.all_reduce_([sums], "losses")
        losses.append([*(sums / IMPRESSIONS).tolist(), float(trained.grad_norm())])
    run = out / case
    origin = Origin.of(config, MANIFEST)
    writing.save(run, origin, Position.start(2), Progress(), trained, world)
    if world.is_rank_zero:
        (run / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    started = World.start()
    for name in CASES:
        train(name, Path(sys.argv[1]), started)
