"""The row-wise updates against a plain loop and against torch's own sparse Adam."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esmm.config import SparseOptimizerConfig
from esmm.embedding.optimizers import LazyAdam, RowwiseAdagrad, Sgd, make_sparse_optimizer

ROWS, DIM, STEPS, EPS = 9, 4, 12, 1e-8
CPU = torch.device("cpu")


def _steps() -> list[tuple[Tensor, Tensor]]:
    """Rows touched and their gradients at each step; one row is never touched, one only at the end."""
    generator = torch.Generator().manual_seed(3)
    steps = []
    for step in range(STEPS):
        touched = torch.randperm(ROWS - 2, generator=generator)[: step % (ROWS - 2)].sort().values
        rows = torch.cat([touched, torch.tensor([ROWS - 2])]) if step == STEPS - 1 else touched
        steps.append((rows.int(), torch.randn(len(rows), DIM, generator=generator)))
    return steps


def test_rowwise_adagrad_equals_a_loop() -> None:
    table = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(1))
    expected, squares = table.double().numpy().copy(), np.zeros(ROWS)
    optimizer = RowwiseAdagrad(ROWS, DIM, 0.1, EPS, CPU)
    for step, (rows, gradient) in enumerate(_steps(), 1):
        optimizer.update(table, rows, gradient, step, 1.0)
        for row, g in zip(rows.tolist(), gradient.double().numpy(), strict=True):
            squares[row] += sum(value * value for value in g) / DIM
            expected[row] -= 0.1 * g / (squares[row] ** 0.5 + EPS)
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(optimizer.state["squares"].numpy(), squares, rtol=1e-5)


def test_lazy_adam_equals_torch_sparse_adam() -> None:
    table = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(2))
    parameter = nn.Parameter(table.clone())
    reference = torch.optim.SparseAdam([parameter], lr=0.1, eps=EPS)
    optimizer = LazyAdam(ROWS, DIM, 0.1, EPS, CPU)
    for step, (rows, gradient) in enumerate(_steps(), 1):
        optimizer.update(table, rows, gradient, step, 1.0)
        parameter.grad = torch.sparse_coo_tensor(
            rows.long().unsqueeze(0), gradient, table.shape, check_invariants=True
        )
        reference.step()
    torch.testing.assert_close(table, parameter.detach(), rtol=1e-5, atol=1e-6)


def test_a_zero_gradient_leaves_a_row_as_it_is() -> None:
    for kind in (Sgd, RowwiseAdagrad, LazyAdam):
        table = torch.ones(ROWS, DIM)
        optimizer = kind(ROWS, DIM, 0.1, EPS, CPU)
        optimizer.update(table, torch.tensor([4]).int(), torch.zeros(1, DIM), 1, 1.0)
        assert (table == 1).all()


@pytest.mark.parametrize("kind", [Sgd, RowwiseAdagrad, LazyAdam])
def test_a_scaled_table_moves_like_a_plain_one(kind: type[Sgd | RowwiseAdagrad | LazyAdam]) -> None:
    plain = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(2))
    scaled, scale = plain / 0.125, 0.125
    optimizers = [kind(ROWS, DIM, 0.1, EPS, CPU) for _ in range(2)]
    for step, (rows, gradient) in enumerate(_steps(), 1):
        optimizers[0].update(plain, rows, gradient, step, 1.0)
        optimizers[1].update(scaled, rows, gradient, step, scale)
    torch.testing.assert_close(scale * scaled, plain)


@pytest.mark.parametrize("name", ["rowwise_adagrad", "lazy_adam"])
@pytest.mark.parametrize("batch_size", [1, 1024, 8192, 65536, 524288])
def test_a_fresh_row_moves_by_its_rate_whatever_the_batch_size(name: str, batch_size: int) -> None:
    """The gradient of a mean over many impressions is tiny where one of them has the row.

    In the demo's untrained model a row's share of the sum is about 5e-5, and 3e-5 where it is seen once.
    """
    config = SparseOptimizerConfig.model_validate({"name": name, "learning_rate": 0.1})
    table, gradient = torch.zeros(1, DIM), torch.full((1, DIM), 3e-5 / batch_size)
    optimizer = make_sparse_optimizer(config, batch_size, 1, DIM, CPU)
    optimizer.update(table, torch.tensor([0]).int(), gradient, 1, 1.0)
    assert -0.1 <= float(table.min()) <= float(table.max()) < -0.1 * 0.98


@pytest.mark.parametrize("name", ["rowwise_adagrad", "lazy_adam"])
def test_how_rows_move_does_not_depend_on_the_impressions_without_them(name: str) -> None:
    """A thousand times as many impressions in a step: the same sums, a thousand times smaller means."""
    config = SparseOptimizerConfig.model_validate({"name": name, "learning_rate": 0.1})
    tables = [torch.zeros(ROWS, DIM) for _ in range(2)]
    for table, batch_size in zip(tables, (64, 65536), strict=True):
        optimizer = make_sparse_optimizer(config, batch_size, ROWS, DIM, CPU)
        for step, (rows, gradient) in enumerate(_steps(), 1):
            optimizer.update(table, rows, 1e-7 * gradient / batch_size, step, 1.0)
    torch.testing.assert_close(*tables, rtol=1e-4, atol=1e-7)


def test_eps_is_what_it_is_set_to() -> None:
    config = SparseOptimizerConfig(learning_rate=0.1, eps=1.0)
    optimizer, table = make_sparse_optimizer(config, 1024, 1, DIM, CPU), torch.zeros(1, DIM)
    optimizer.update(table, torch.tensor([0]).int(), torch.ones(1, DIM), 1, 1.0)
    torch.testing.assert_close(table, torch.full((1, DIM), -0.05))
