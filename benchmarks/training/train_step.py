"""Our training step with the batches already in memory: no loader, one worker. `make bench` prints it."""

import statistics
import time
from collections.abc import Iterator
from itertools import count, islice

from cli.errors import InputError
from esmm.batch import Batch
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.workers.world import World
from schemas.schema import Schema

BATCHES = 8  # different ones, so that a step does not find its rows in the cache
WARM_UP_STEPS = 3
MIN_STEPS = 20
MIN_SECONDS = 5.0


def full_batches(loader: Loader) -> Iterator[Batch]:
    """Epoch after epoch without end, but for the steps that have too few impressions."""
    for epoch in count():
        position = Position.start(epoch)
        schedule = loader.plan(position)
        if schedule.global_batch_size(0) < loader.batch_size:
            raise InputError(
                f"{loader.folder}: expected at least {loader.batch_size} impressions, "
                f"found {loader.manifest['counts']['impressions']}."
            )
        for index, batch in enumerate(loader.epoch(position)):
            if schedule.global_batch_size(index) == loader.batch_size:
                yield batch


def first_batches(loader: Loader, world: World, number: int = BATCHES) -> list[Batch]:
    return [batch.to(world.device) for batch in islice(full_batches(loader), number)]


def enlarged(schema: Schema, rows: int) -> Schema:
    """Buckets in the same proportions, exactly so many in all; the largest field takes the rounding."""
    sizes = {name: max(2, size * rows // schema.num_rows) for name, size in schema.buckets.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    sizes[largest] += rows - sum(sizes.values())
    return schema.with_buckets(sizes)


def make_trained(config: Config, schema: Schema, world: World) -> TrainStep:
    """An untrained model with its optimisers."""
    model = make_model(config.model, schema, world)
    initialise(model, config)
    return TrainStep(config, model, world)


def measure(folder: str, batch_size: int) -> dict[str, float]:
    """Impressions/s of the default model on samples in `folder`.

    Also how many impressions share a context and how many ids a batch has, which decide the work of a
    step. `best` is the fastest step: on a machine that others use, the median says more about them.
    """
    world = World.start().use("auto")
    loader = Loader(folder, batch_size=batch_size, shuffle_window=1024)
    batches = first_batches(loader, world)
    trained = make_trained(Config(), loader.schema, world)
    seconds = list[float]()
    while len(seconds) < MIN_STEPS + WARM_UP_STEPS or sum(seconds) < MIN_SECONDS:
        started = time.perf_counter()
        trained(batches[len(seconds) % len(batches)], batch_size).tolist()
        seconds.append(time.perf_counter() - started)
    timed = seconds[WARM_UP_STEPS:]
    return {
        "impressions_per_second": batch_size / statistics.median(timed),
        "best": batch_size / min(timed),
        "impressions_per_context": batch_size / statistics.mean(batch.num_contexts for batch in batches),
        "ids_per_batch": statistics.mean(len(b.bags.ids) for b in batches),
    }
