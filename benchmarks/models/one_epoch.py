"""One epoch of a model in this process: for studies that change what no option does."""

from esmm.config import Config
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.training import learning_rate
from esmm.training.train_step import TrainStep


def train_epoch(trained: TrainStep, loader: Loader, config: Config) -> None:
    """As `esmm.train` does it."""
    position = Position.start(1)
    schedule = loader.plan(position)
    for index, batch in enumerate(trained.ahead(loader.epoch(position))):
        factor = learning_rate.lr_factor(config.optimizer.schedule, trained.step + 1, schedule.steps)
        trained.set_learning_rates(factor)
        trained(batch, schedule.global_batch_size(index))
