"""What the models of this folder are made of: towers, and how they start."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esmm.config import ModelConfig
from esmm.model.batch_norm import BatchNorm
from esmm.model.dropout import drop_out
from esmm.model.layers import Dense
from esmm.workers.world import World


class DenseLayer(nn.Linear):
    """A linear layer, with or without ReLU, in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int, relu: bool) -> None:
        super().__init__(inputs, outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Dense.apply(x, self.weight, self.bias, self.relu))


def tower(config: ModelConfig) -> nn.Sequential:
    """[B, h1] -> [B, 1]: the layers after the first. Checkpoints name them by even numbers: 0, 2, 4.

    Where batch norm comes between a layer and its ReLU, the layer has no ReLU, and its bias, which the norm
    takes away again, is not trained.
    """
    layers = [DenseLayer(*widths, relu=not config.batch_norm) for widths in pairwise(config.towers)]
    for layer in layers:
        layer.bias.requires_grad_(not config.batch_norm)
    layers.append(DenseLayer(config.towers[-1], 1, relu=False))
    return nn.Sequential(OrderedDict((str(2 * level), layer) for level, layer in enumerate(layers)))


def norms(config: ModelConfig, num_towers: int, world: World) -> nn.ModuleList:
    """Batch norm of each hidden layer of all towers; none where the configuration has none."""
    widths = config.towers if config.batch_norm else []
    return nn.ModuleList(BatchNorm(num_towers, h, world, f"norm{level}") for level, h in enumerate(widths))


def tower_logits(
    towers: nn.ModuleList,
    hidden: Sequence[Tensor],
    norms: nn.ModuleList,
    dropout: float,
    generator: torch.Generator | None,
) -> list[Tensor]:
    """The layers after the first, level by level, so that a norm costs one exchange for all towers.

    hidden: of T towers, [B, h1] each, before its ReLU where there are norms. generator: of dropout, if
    wanted. Returns T logits, float32 [B].
    """
    chains = [cast(nn.Sequential, chain) for chain in towers]
    for level in range(len(chains[0])):
        if norms:
            hidden = [F.relu_(x) for x in norms[level](hidden)]
        if dropout and generator is not None:
            hidden = [drop_out(x, dropout, generator) for x in hidden]
        hidden = [chain[level](x) for chain, x in zip(chains, hidden, strict=True)]
    return [logit.float().squeeze(1) for logit in hidden]


@torch.no_grad()
def initialise_first_layer(context: nn.Linear, item: nn.Linear) -> None:
    """torch's default for linear layers, from its global generator; the two halves count as one.

    Drawn on the CPU wherever the parameters lie: a GPU's generator gives other numbers.
    """
    fan_in = context.in_features + item.in_features
    for parameter in (*context.parameters(), *item.parameters()):
        parameter.copy_(torch.empty(parameter.shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))


@torch.no_grad()
def initialise_towers(towers: Iterable[nn.Module]) -> None:
    """torch's default for linear layers, tower by tower, drawn on the CPU too."""
    for layer in (module for tower in towers for module in tower.modules()):
        if isinstance(layer, nn.Linear):
            fresh = nn.Linear(layer.in_features, layer.out_features)
            layer.weight.copy_(fresh.weight)
            layer.bias.copy_(fresh.bias)


def start_at(tower: nn.Module, rate: float) -> None:
    """Let an untrained tower predict about this rate: its last bias is the rate's log odds."""
    last = cast(nn.Linear, cast(nn.Sequential, tower)[-1])
    nn.init.constant_(last.bias, math.log(rate / (1 - rate)))
