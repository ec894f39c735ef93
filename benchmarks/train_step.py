"""How fast a training step is, with the batches already in memory: no loader, one worker."""

import statistics
import time
from itertools import islice

from esmm.config import Config
from esmm.data import Loader
from esmm.distributed import World
from esmm.step import TrainStep, initialise, make_model

BATCHES = 8  # different ones, so that a step does not find its rows in the cache
WARM_UP_STEPS = 3
MIN_STEPS, MIN_SECONDS = 20, 5.0


def measure(folder: str, batch_size: int) -> dict[str, float]:
    """Impressions/s of the default model on samples in `folder`.

    Also how many impressions share a context and how many ids a batch has, which decide the work of a
    step. `best` is the fastest step: on a machine that others use, the median says more about them.
    """
    world, config = World.start(), Config()
    loader = Loader(folder, batch_size=batch_size, shuffle_window=1024)
    full = (batch for batch in loader.epoch(0) if batch.num_impressions == batch_size)
    batches = [batch.to(world.device) for batch in islice(full, BATCHES)]
    if not batches:
        raise ValueError(f"{folder} holds fewer than {batch_size} impressions")
    model = make_model(config.model, sum(loader.manifest["buckets"].values()), world)
    initialise(model, config)
    trained, seconds = TrainStep(config, model, world), list[float]()
    while len(seconds) < MIN_STEPS + WARM_UP_STEPS or sum(seconds) < MIN_SECONDS:
        started = time.perf_counter()
        trained(batches[len(seconds) % len(batches)], batch_size).tolist()
        seconds.append(time.perf_counter() - started)
    timed = seconds[WARM_UP_STEPS:]
    return {
        "impressions_per_second": batch_size / statistics.median(timed),
        "best": batch_size / min(timed),
        "impressions_per_context": batch_size / statistics.mean(batch.num_contexts for batch in batches),
        "ids_per_batch": statistics.mean(len(b.user.ids) + len(b.impression.ids) for b in batches),
    }
