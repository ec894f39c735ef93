"""Optimisers that touch only the rows of a step. Their state is dealt over ranks like the rows themselves.

Each has a `learning_rate`, its `state` by name, every tensor with one entry per row of the shard, and
`update`, which moves rows of a table [R, D] against their gradient [n, D]. rows: int32 [n], no row twice.
step: number of this step over the whole run, from 1. The table holds the true rows / scale (see
`ShardedEmbedding`), and gradients are those of the true rows.
"""

import math

import torch
from torch import Tensor

from esmm.config import SparseOptimizerConfig

STEPS_BEFORE = "steps_before"
EPS = 1e-8  # for sums of gradients; those of a mean over B impressions are B times smaller, so is theirs


class Sgd:
    """w -= lr * g."""

    def __init__(
        self, num_rows: int, dim: int, learning_rate: float, eps: float, device: torch.device
    ) -> None:
        self.learning_rate = learning_rate
        self.state: dict[str, Tensor] = {}

    def update(self, table: Tensor, rows: Tensor, gradient: Tensor, step: int, scale: float) -> None:
        _subtract(table, rows.long(), gradient, self.learning_rate / scale)


class RowwiseAdagrad:
    """Adagrad with one accumulator per row, or per part of it that is one of several tables', not per number.

    s += mean(g^2); w -= lr * g / (sqrt(s) + eps), as FBGEMM's EXACT_ROWWISE_ADAGRAD.
    """

    def __init__(
        self, num_rows: int, dim: int, learning_rate: float, eps: float, device: torch.device, tables: int = 1
    ) -> None:
        self.learning_rate = learning_rate
        self.eps = eps
        self.tables = tables
        shape = (num_rows,) if tables == 1 else (num_rows, tables)
        self.state = {"squares": torch.zeros(shape, device=device)}

    def update(self, table: Tensor, rows: Tensor, gradient: Tensor, step: int, scale: float) -> None:
        rows = rows.long()
        squares = self.state["squares"]
        parts = gradient if self.tables == 1 else gradient.unflatten(1, (self.tables, -1))
        total = squares.index_select(0, rows).add_(parts.square().mean(-1))
        squares.index_copy_(0, rows, total)
        inverse = total.sqrt_().add_(self.eps).reciprocal_().unsqueeze(-1)
        _subtract(table, rows, (parts * inverse).view_as(gradient), self.learning_rate / scale)


class LazyAdam:
    """Adam whose moments decay only when their row is touched; equal to `torch.optim.SparseAdam`.

    Their bias is corrected by the run's step and, for rows that a warm start has taken over, by the steps of
    the runs before as well, `steps_before` in the state: their moments are as old as that.
    """

    BETA1 = 0.9
    BETA2 = 0.999

    def __init__(
        self, num_rows: int, dim: int, learning_rate: float, eps: float, device: torch.device
    ) -> None:
        self.learning_rate = learning_rate
        self.eps = eps
        self.state = {name: torch.zeros(num_rows, dim, device=device) for name in ("mean", "square")}
        self.state[STEPS_BEFORE] = torch.zeros(num_rows, device=device)

    def update(self, table: Tensor, rows: Tensor, gradient: Tensor, step: int, scale: float) -> None:
        rows = rows.long()
        mean = self.state["mean"].index_select(0, rows).lerp_(gradient, 1 - self.BETA1)
        square = self.state["square"].index_select(0, rows).lerp_(gradient.square(), 1 - self.BETA2)
        self.state["mean"].index_copy_(0, rows, mean)
        self.state["square"].index_copy_(0, rows, square)
        age = self.state[STEPS_BEFORE].index_select(0, rows).add_(step).unsqueeze(1)
        correction = _one_minus_power(self.BETA2, age).sqrt_() / _one_minus_power(self.BETA1, age)
        change = mean.div_(square.sqrt_().add_(self.eps)).mul_(correction)
        _subtract(table, rows, change, self.learning_rate / scale)


def _one_minus_power(base: float, exponents: Tensor) -> Tensor:
    """1 - base^exponents, exact also where the power is close to 1."""
    return torch.expm1(exponents * math.log(base)).neg_()


def _subtract(table: Tensor, rows: Tensor, change: Tensor, factor: float) -> None:
    """table[rows] -= factor * change. `index_add_` would do, but is many times slower on a CPU."""
    table.index_copy_(0, rows, table.index_select(0, rows).sub_(change, alpha=factor))


def make_sparse_optimizer(
    config: SparseOptimizerConfig,
    batch_size: int,
    num_rows: int,
    dim: int,
    device: torch.device,
    tables: int = 1,
) -> Sgd | RowwiseAdagrad | LazyAdam:
    """The configured optimiser with empty state for a shard of a table, or of several whose rows are one.

    batch_size: impressions that a step's gradient is the mean over. With it the default eps shrinks, as the
    gradients do: how a row moves does not depend on how many impressions without it share its step.
    """
    eps = EPS / batch_size if config.eps is None else config.eps
    if config.name == "rowwise_adagrad":
        return RowwiseAdagrad(num_rows, dim, config.learning_rate, eps, device, tables)
    kind = LazyAdam if config.name == "lazy_adam" else Sgd
    return kind(num_rows, dim, config.learning_rate, eps, device)
