"""One training step: forward, backward, exchange of gradients, update."""

import logging
from collections.abc import Generator, Iterable, Sequence

import torch
from torch import Tensor
from torch.profiler import record_function

from esmm.batch import Batch
from esmm.config import Config
from esmm.embedding.optimizers import make_sparse_optimizer
from esmm.embedding.sharded_table import ShardedEmbedding
from esmm.model.dropout import step_generator
from esmm.model.loss import Labels
from esmm.model.model import Model
from esmm.model.models import network_class
from esmm.model_config import ModelConfig
from esmm.workers.world import Handle, World
from schemas.schema import Schema

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_model(config: ModelConfig, schema: Schema, world: World) -> Model:
    """A model for samples of this schema, its numbers still to be filled."""
    kind = network_class(config.name)
    network = kind(config, schema, world).to(world.device)
    return Model(network, ShardedEmbedding(schema.num_rows, kind.row_width(config), world))


def initialise(model: Model, config: Config) -> None:
    """Start values that depend on the seed, and neither on the number of workers nor on their devices."""
    torch.manual_seed(config.train.seed)
    model.network.initialise()
    world = model.embedding.world
    world.broadcast_([parameter.data for parameter in model.network.parameters()], "network")
    model.embedding.initialise(config.train.seed, config.model.embedding_init)


class TrainStep:
    """A model with its optimisers. `step` counts the steps taken over the whole run.

    row_squares: squared length of the last step's gradient of this rank's rows, before clipping.
    clip_coefficient: what clipping has multiplied the last step's gradient with.
    """

    def __init__(self, config: Config, model: Model, world: World) -> None:
        self.model = model
        self.world = world
        self.step = 0
        self.config = config.optimizer
        self.dtype = DTYPES[config.train.precision]
        if config.train.precision == "bf16" and not _computes_bf16(world.device):
            log.warning("this processor has no bf16 instructions: train.precision fp32 is faster on it")
        self.class_weights = config.loss.class_weights
        self.epsilon = config.loss.epsilon
        self.dropout = config.model.dropout
        self.seed = config.train.seed
        weights = model.network.loss_weights(config.model, config.loss)
        self.task_weights = torch.tensor(weights, device=world.device)
        num_rows, dim = model.embedding.table.shape
        self.sparse = make_sparse_optimizer(
            config.optimizer.sparse,
            config.train.batch_size,
            num_rows,
            dim,
            world.device,
            model.network.TABLES,
        )
        self.parameters = list(model.network.parameters())
        self.gradient = _one_gradient(self.parameters)
        dense = config.optimizer.dense
        self.dense = torch.optim.AdamW(
            self.parameters, lr=dense.learning_rate, weight_decay=dense.weight_decay, fused=True
        )
        self.row_squares = torch.zeros((), device=world.device)
        self.clip_coefficient = torch.ones((), device=world.device)

    def set_learning_rates(self, lr_factor: float) -> None:
        """Multiply both configured learning rates."""
        self.sparse.learning_rate = lr_factor * self.config.sparse.learning_rate
        for group in self.dense.param_groups:
            group["lr"] = lr_factor * self.config.dense.learning_rate

    def ahead(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """The batches on this worker's device, each one's request sent while the step before it runs."""
        embedding = self.model.embedding
        waiting = list[Batch]()
        try:
            for batch in batches:
                waiting.append(batch.to(self.world.device))
                embedding.start_input_dist(waiting[-1].require_request())
                if len(waiting) == 2:
                    yield waiting.pop(0)
            yield from waiting
        finally:
            embedding.drain()

    def __call__(self, batch: Batch, global_impressions: int) -> Tensor:
        """Train on this rank's batch, which may be empty; return its summed losses, in the model's order.

        global_impressions: of all ranks in this step. Each rank divides its sum by it, so that the sum of
        the ranks' gradients is the gradient of the mean over all of them.
        """
        self.step += 1
        with record_function("forward"):
            logits, lookup = self.model.forward(batch, self.dtype, self._generator())
            labels = Labels(
                batch.click, batch.conversion, self.class_weights, batch.weight, self.epsilon, batch.action
            )
            losses = self.model.network.loss_sums(logits, labels)
        with record_function("backward"):
            self.gradient.zero_()
            (losses @ self.task_weights / global_impressions).backward()
        assert lookup.pooled.grad is not None
        # The rows' gradients go first: while the dense sum travels, the rows are updated, and the next
        # step's vectors set out.
        row_sums = self.model.embedding.start_gradients(lookup, lookup.pooled.grad)
        dense_sum = self.world.start_all_reduce(self.gradient, "dense")
        rows = lookup.owned.rows
        gradient = self._row_gradient(lookup.owned.rows, row_sums)
        if self.config.clip_grad_norm is None:
            self._update_rows(rows, gradient)
            dense_sum.wait()
        else:
            dense_sum.wait()
            self.clip_coefficient.fill_(1.0)
            self.clip_coefficient = (self.config.clip_grad_norm / self.grad_norm("clip")).clamp(max=1.0)
            self.gradient.mul_(self.clip_coefficient)
            self._update_rows(rows, gradient.mul_(self.clip_coefficient))
        with record_function("dense_update"):
            self.dense.step()
        return losses.detach()

    def grad_norm(self, name: str = "norm") -> Tensor:
        """Length of the last step's gradient before clipping. All ranks call it together."""
        rows = self.row_squares.clone()
        self.world.all_reduce_([rows], name)
        return ((self.gradient.norm() / self.clip_coefficient).square() + rows).sqrt_()

    def _generator(self) -> torch.Generator | None:
        if not self.dropout:
            return None
        return step_generator(self.seed, self.step, self.world.rank, self.world.device)

    def _row_gradient(self, rows: Tensor, row_sums: Handle[Tensor]) -> Tensor:
        """The gradient of this rank's rows of the step, L2 included."""
        gradient = row_sums.wait()
        if self.config.sparse.l2:
            embedding = self.model.embedding
            values = embedding.table.index_select(0, rows)
            gradient.add_(values, alpha=self.config.sparse.l2 * embedding.scale)
        self.row_squares = gradient.square().sum()
        return gradient

    def _update_rows(self, rows: Tensor, gradient: Tensor) -> None:
        with record_function("sparse_update"):
            embedding = self.model.embedding
            embedding.shrink(1 - self.sparse.learning_rate * self.config.sparse.weight_decay)
            self.sparse.update(embedding.table, rows, gradient, self.step, embedding.scale)
        embedding.start_output_dist()


def _computes_bf16(device: torch.device) -> bool:
    """Has the device instructions for it? Without them it is emulated, correctly and slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(has and "bf16" in name for name, has in torch.cpu.get_capabilities().items())


def _one_gradient(parameters: Sequence[Tensor]) -> Tensor:
    """Gradients of all parameters, zero, as parts of one tensor: one allreduce, without copies."""
    flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    return flat
