"""One training step: forward, backward, exchange of gradients, update."""

import torch
from torch import Tensor

from esmm.batch import Batch
from esmm.config import Config, ModelConfig
from esmm.distributed import World
from esmm.embedding import ShardedEmbedding
from esmm.loss import loss_sums
from esmm.model import Esmm, EsmmNetwork
from esmm.sparse_optimizer import make_sparse_optimizer


def make_model(config: ModelConfig, num_rows: int, world: World) -> Esmm:
    """A model for a fused table of `num_rows`, its numbers still to be filled."""
    network = EsmmNetwork(config).to(world.device)
    return Esmm(network, ShardedEmbedding(num_rows, config.embedding_dim, world))


def initialise(model: Esmm, config: Config) -> None:
    """Start values that depend on the seed and not on the number of workers."""
    torch.manual_seed(config.train.seed)
    model.network.initialise()
    world = model.embedding.world
    world.broadcast_([parameter.data for parameter in model.network.parameters()], "network")
    model.embedding.initialise(config.train.seed, config.model.embedding_init)


class TrainStep:
    """A model with its optimisers. `step` counts the steps taken over the whole run."""

    def __init__(self, config: Config, model: Esmm, world: World) -> None:
        self.model, self.world, self.step = model, world, 0
        num_rows, dim = model.embedding.table.shape
        self.sparse = make_sparse_optimizer(config.optimizer.sparse, num_rows, dim, world.device)
        self.parameters = list(model.network.parameters())
        self.dense = torch.optim.Adam(self.parameters, lr=config.optimizer.dense.learning_rate, fused=True)

    def __call__(self, batch: Batch, global_impressions: int) -> Tensor:
        """Train on this rank's batch, which may be empty; return its two summed losses, [2].

        global_impressions: of all ranks in this step. Each rank divides its sum by it, so that the sum of
        the ranks' gradients is the gradient of the mean over all of them.
        """
        self.step += 1
        ctr, cvr, lookup = self.model.forward(batch)
        losses = loss_sums(ctr, cvr, batch.click, batch.conversion)
        self.dense.zero_grad(set_to_none=True)
        (losses.sum() / global_impressions).backward()
        self.world.sum_([p.grad for p in self.parameters if p.grad is not None], "dense")
        self.dense.step()
        self.model.embedding.apply_gradients(lookup, self.sparse, self.step)
        return losses.detach()
