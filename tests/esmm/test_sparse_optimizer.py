"""The row-wise updates against a plain loop and against torch's own sparse Adam."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esmm.training.sparse_optimizer import LazyAdam, RowwiseAdagrad, Sgd

ROWS, DIM, STEPS = 9, 4, 12


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
    optimizer = RowwiseAdagrad(ROWS, DIM, 0.1, table.device)
    for step, (rows, gradient) in enumerate(_steps(), 1):
        optimizer.update(table, rows, gradient, step, 1.0)
        for row, g in zip(rows.tolist(), gradient.double().numpy(), strict=True):
            squares[row] += sum(value * value for value in g) / DIM
            expected[row] -= 0.1 * g / (squares[row] ** 0.5 + 1e-8)
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(optimizer.state["squares"].numpy(), squares, rtol=1e-5)


def test_lazy_adam_equals_torch_sparse_adam() -> None:
    table = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(2))
    parameter = nn.Parameter(table.clone())
    reference = torch.optim.SparseAdam([parameter], lr=0.1)
    optimizer = LazyAdam(ROWS, DIM, 0.1, table.device)
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
        kind(ROWS, DIM, 0.1, table.device).update(table, torch.tensor([4]).int(), torch.zeros(1, DIM), 1, 1.0)
        assert (table == 1).all()


@pytest.mark.parametrize("kind", [Sgd, RowwiseAdagrad, LazyAdam])
def test_a_scaled_table_moves_like_a_plain_one(kind: type[Sgd | RowwiseAdagrad | LazyAdam]) -> None:
    plain = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(2))
    scaled, scale = plain / 0.125, 0.125
    optimizers = [kind(ROWS, DIM, 0.1, plain.device) for _ in range(2)]
    for step, (rows, gradient) in enumerate(_steps(), 1):
        optimizers[0].update(plain, rows, gradient, step, 1.0)
        optimizers[1].update(scaled, rows, gradient, step, scale)
    torch.testing.assert_close(scale * scaled, plain)
