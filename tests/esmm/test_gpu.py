"""What only a GPU can show. Everything else runs on the CPU and is written for both."""

import random

import pytest
import torch

from esmm.config import Config
from esmm.training.step import TrainStep, initialise, make_model
from esmm.workers.distributed import World
from tests.esmm.plain_batches import random_batch, to_batch
from tests.esmm.workers import ONE_WORKER

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and torch sees none")
NUM_ROWS, IMPRESSIONS = 60, 40


def _trained(world: World) -> TrainStep:
    config = Config.model_validate({"model": {"embedding_dim": 4, "towers": [16, 8]}})
    model = make_model(config.model, NUM_ROWS, world)
    initialise(model, config)
    return TrainStep(config, model, world)


def test_a_gpu_trains_as_the_cpu_does() -> None:
    runs = [_trained(ONE_WORKER), _trained(World(1, 0, 0, 1, torch.device("cuda", 0)))]
    rng = random.Random(1)
    for _ in range(10):
        batch = to_batch(random_batch(rng, 5, IMPRESSIONS, NUM_ROWS), NUM_ROWS)
        losses = [trained(batch.to(trained.world.device), IMPRESSIONS).cpu() for trained in runs]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-4)
    tables = [trained.model.embedding.table.cpu() for trained in runs]
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-3, atol=1e-5)


def test_a_step_never_waits_for_the_gpu() -> None:
    trained = _trained(World(1, 0, 0, 1, torch.device("cuda", 0)))
    rng = random.Random(1)
    batches = [
        to_batch(random_batch(rng, 5, IMPRESSIONS, NUM_ROWS), NUM_ROWS).to(trained.world.device)
        for _ in range(3)
    ]
    trained(batches[0], IMPRESSIONS)  # the first step allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            trained(batch, IMPRESSIONS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
