"""Batch normalisation over the impressions of all workers, so that N of them follow the curve of one.

Ioffe and Szegedy, ICML 2015. Horovod's own SyncBatchNorm runs on GPUs only.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from esmm.workers.world import World


class BatchNorm(nn.Module):
    """Normalises one hidden layer of all T towers: by the step's statistics, or by running ones.

    A step costs two small allreduces, one in each direction, whatever T is. Like torch's BatchNorm1d the
    running variance is the unbiased one, and `eval()` switches to the running statistics. name: of the
    layer, for the allreduces.
    """

    EPS = 1e-5
    MOMENTUM = 0.1

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_towers: int, width: int, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.weight = nn.Parameter(torch.ones(num_towers, width))
        self.bias = nn.Parameter(torch.zeros(num_towers, width))
        self.register_buffer("running_mean", torch.zeros(num_towers, width))
        self.register_buffer("running_var", torch.ones(num_towers, width))

    def forward(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        """T tensors [B, H] -> the same, normalised. In training all ranks call it together; B may be 0."""
        inputs = [x.float() for x in hidden]
        outputs = self._batch_statistics(inputs) if self.training else self._running_statistics(inputs)
        return [y.to(x.dtype) for x, y in zip(hidden, outputs, strict=True)]

    def _batch_statistics(self, hidden: list[Tensor]) -> Sequence[Tensor]:
        mean, variance, count = _moments([x.detach() for x in hidden], self.world, self.name)
        momentum = self.MOMENTUM * (count > 0)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), momentum)
        scale = (variance + self.EPS).rsqrt_()
        parameters = (self.weight, self.bias)
        outputs: tuple[Tensor, ...] = _Normalise.apply(
            self.world, self.name, count, mean, scale, *parameters, *hidden
        )
        return outputs

    def _running_statistics(self, hidden: list[Tensor]) -> list[Tensor]:
        towers = zip(hidden, self.running_mean, self.running_var, self.weight, self.bias, strict=True)
        return [F.batch_norm(*tower, training=False, eps=self.EPS) for tower in towers]


def _moments(hidden: list[Tensor], world: World, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance [T, H] over all ranks' rows of T tensors [B, H], and the number of rows."""
    num_rows = hidden[0].shape[0]
    mean, variance = (part.double() for part in _local_moments(hidden))
    sums = num_rows * mean
    squares = num_rows * (variance + mean.square())
    count = mean.new_full((), num_rows)
    world.all_reduce_([sums, squares, count], f"{name}.moments")
    rows = count.clamp(min=1)  # all ranks' batches are empty where a broken row group is left out
    mean = sums / rows
    # In float64, so that little is lost where the mean is far larger than the deviation.
    variance = (squares / rows - mean.square()).clamp_(min=0)
    return mean.float(), variance.float(), count.float()


def _local_moments(hidden: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, each [T, H], of this rank's rows; zeros of no rows."""
    if hidden[0].shape[0] == 0:
        zeros = torch.stack([x.new_zeros(x.shape[1]) for x in hidden])
        return zeros, zeros
    # What nn.BatchNorm computes; many times faster than torch.var_mean along the first dimension.
    means, variances = zip(*(torch.batch_norm_update_stats(x, None, None, 0.0) for x in hidden), strict=True)
    return torch.stack(means), torch.stack(variances)


class _Normalise(Function):
    """(x - mean) * scale * weight + bias; x [B, H] of each of T towers, all else [T, H].

    The mean and the scale are functions of the `count` rows of all ranks. With n = (x - mean) * scale and
    averages <> over those rows,

        d/dx = weight * scale * (g - <g> - n <g n>)
    """

    @staticmethod
    def forward(
        ctx: Any,
        world: World,
        name: str,
        count: Tensor,
        mean: Tensor,
        scale: Tensor,
        weight: Tensor,
        bias: Tensor,
        *hidden: Tensor,
    ) -> tuple[Tensor, ...]:
        normal = [torch.sub(x, m).mul_(s) for x, m, s in zip(hidden, mean, scale, strict=True)]
        ctx.world = world
        ctx.name = name
        ctx.save_for_backward(count, weight * scale, *normal)
        return tuple(torch.addcmul(b, n, w) for n, w, b in zip(normal, weight, bias, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count, slope, *normal = ctx.saved_tensors
        # Of this rank's rows: those of the parameters are summed with all others at the end of a step.
        to_bias = torch.stack([g.sum(0) for g in gradients])
        to_weight = torch.stack([(g * n).sum(0) for g, n in zip(gradients, normal, strict=True)])
        averages = torch.stack([to_bias, to_weight])
        ctx.world.all_reduce_([averages], f"{ctx.name}.gradients")
        averages /= count
        to_hidden = [
            torch.addcmul(g, n, tilt, value=-1).sub_(level).mul_(s)
            for g, n, level, tilt, s in zip(gradients, normal, *averages, slope, strict=True)
        ]
        return None, None, None, None, None, to_weight, to_bias, *to_hidden
