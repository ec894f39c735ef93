"""Towers, what the models of this folder are made of, and how they start."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from esmm.model.batch_norm import BatchNorm
from esmm.model.layers import Dense
from esmm.model_config import ModelConfig
from esmm.workers.world import World


class DenseLayer(nn.Linear):
    """A linear layer, with or without ReLU, in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int, relu: bool) -> None:
        super().__init__(inputs, outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Dense.apply(x, self.weight, self.bias, self.relu))


def tower(widths: Sequence[int], batch_norm: bool) -> nn.Sequential:
    """[B, h1] -> [B, 1]: the layers after the first. Checkpoints name them by even numbers: 0, 2, 4.

    Where batch norm comes between a layer and its ReLU, the layer has no ReLU, and its bias, which the norm
    takes away again, is not trained.
    """
    layers = [DenseLayer(*pair, relu=not batch_norm) for pair in pairwise(widths)]
    for layer in layers:
        layer.bias.requires_grad_(not batch_norm)
    layers.append(DenseLayer(widths[-1], 1, relu=False))
    return nn.Sequential(OrderedDict((str(2 * level), layer) for level, layer in enumerate(layers)))


def norms(config: ModelConfig, firsts: int, towers: int, world: World) -> nn.ModuleList:
    """Batch norm of each hidden layer: of the first layers, then of all towers; none where it is off."""
    widths = config.towers if config.batch_norm else []
    counts = [firsts] + [towers] * len(widths)
    return nn.ModuleList(
        BatchNorm(count, width, world, f"norm{level}")
        for level, (count, width) in enumerate(zip(counts, widths, strict=False))
    )


@torch.no_grad()
def initialise_first_layer(context: nn.Linear, item: nn.Linear) -> None:
    """torch's default for linear layers, from its global generator; the two halves count as one.

    Drawn on the CPU wherever the parameters lie: a GPU's generator gives other numbers.
    """
    fan_in = context.in_features + item.in_features
    for parameter in (*context.parameters(), *item.parameters()):
        parameter.copy_(torch.empty(parameter.shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))


@torch.no_grad()
def initialise(modules: Iterable[nn.Module]) -> None:
    """torch's default for the linear layers among them, in their order, drawn on the CPU too."""
    for layer in modules:
        if isinstance(layer, nn.Linear):
            fresh = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
            layer.weight.copy_(fresh.weight)
            if layer.bias is not None:
                layer.bias.copy_(fresh.bias)


def start_at(tower: nn.Module, rate: float) -> None:
    """Let an untrained tower predict about this rate: its last bias is the rate's log odds."""
    last = cast(nn.Linear, cast(nn.Sequential, tower)[-1])
    nn.init.constant_(last.bias, math.log(rate / (1 - rate)))
