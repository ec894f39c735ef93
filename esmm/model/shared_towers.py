"""Towers over one embedding: the first layers over an impression's input, what joins them, and the towers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli.errors import InputError
from esmm.model import towers
from esmm.model.dots import Dots
from esmm.model.dropout import drop_out
from esmm.model.inputs import Input, Inputs, fields, sizes
from esmm.model.network import TASKS, Network, Rates
from esmm.model.numbers import WithNumbers
from esmm.model.wide import first_order
from esmm.model_config import ModelConfig
from esmm.workers.world import World
from schemas.numbers import Statistics
from schemas.schema import Schema


class SharedTowers(Network):
    """A model says what it adds: what comes between first layers and towers, and after the towers.

    All first layers are one matrix, W [context; item] = W_c context + W_i item. TOWERS: each with its logit.
    """

    TOWERS: ClassVar[int] = TASKS

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__(config, schema, world)
        self.firsts = self.num_firsts(config)
        width = self.firsts * config.towers[0]
        self.sizes = sizes(config, schema)
        self.fields = fields(schema)
        self.context = nn.Linear(self.sizes[0], width)
        self.item = nn.Linear(self.sizes[1], width, bias=False)
        self.context.bias.requires_grad_(not config.batch_norm)
        self.towers = nn.ModuleList(
            towers.tower(widths, config.batch_norm) for widths in self._widths(config)
        )
        self.norms = towers.norms(config, self.firsts, self.TOWERS, world)
        self.inputs = Inputs(config, *self.sizes)
        self.dots = Dots(self.fields, config.embedding_dim, width, config.input_norm) if config.dots else None
        self.numbers = WithNumbers(schema, self.row_width(config)) if schema.numbers else None

    @classmethod
    def _widths(cls, config: ModelConfig) -> list[list[int]]:
        """Of the hidden layers of each tower."""
        widths = [config.towers] * cls.TOWERS
        first, own = config.towers[0], config.cvr_towers
        if own and own[0] != first:
            raise InputError(
                f"model.cvr_towers: expected to begin with {first}, found {own[0]}: all first layers of "
                f"{config.name} are one. Only esmm_ns, base and others that share nothing can differ there."
            )
        if own:
            widths[1] = own
        return widths

    @classmethod
    def row_width(cls, config: ModelConfig) -> int:
        return config.embedding_dim + (cls.TOWERS if config.wide else 0)

    @classmethod
    def num_firsts(cls, config: ModelConfig) -> int:
        """First layers side by side: one for each tower, unless a model says otherwise."""
        return cls.TOWERS

    def initialise(self) -> None:
        """torch's default for linear layers."""
        towers.initialise_first_layer(self.context, self.item)
        towers.initialise(self.towers.modules())
        if self.numbers:
            self.numbers.initialise(self.config.embedding_init)
        known = {self.context, self.item, *self.towers.modules()}
        towers.initialise(module for module in self.modules() if module not in known)

    def start_at(self, rates: Rates) -> None:
        """The last bias of each tower is the log odds of what it predicts."""
        for tower, rate in zip(self.towers, self.starts(rates), strict=False):
            towers.start_at(tower, rate)

    def starts(self, rates: Rates) -> Sequence[float]:
        """What the first towers predict of samples with these rates."""
        return rates.ctr, rates.cvr

    def set_statistics(self, found: Mapping[str, Statistics]) -> None:
        if self.numbers:
            self.numbers.set_statistics(found)

    def forward(
        self,
        pooled: Tensor,
        context_index: Tensor,
        numbers: tuple[Tensor, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        if self.numbers and numbers:
            pooled = self.numbers(pooled, *numbers)
        pooled, wide = self._parted(pooled, context_index)
        x = self.inputs(pooled, context_index, dtype)
        hidden = self._first_layers(x, pooled, context_index, dtype)
        hidden = self.join(self._activated(0, hidden, generator), x)
        logits = [logit.float().squeeze(1) for logit in self.finish(self._towers(hidden, generator))]
        return tuple(logits if wide is None else map(torch.add, logits, wide.unbind(1)))

    def _parted(self, pooled: Tensor, context_index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The pooled vectors alone, and what a wide part adds to the logits, [B, T]."""
        if not self.config.wide:
            return pooled, None
        vectors, numbers = pooled.split([self.config.embedding_dim, self.TOWERS], 1)
        return vectors.contiguous(), first_order(numbers.contiguous(), context_index, *self.fields)

    def _first_layers(
        self, x: Input, pooled: Tensor, context_index: Tensor, dtype: torch.dtype
    ) -> Sequence[Tensor]:
        """[B, h1] each; with ReLU, unless a norm is to come before it."""
        if self.dots is None:
            return x.layer(self.context, self.item, self.firsts, not self.norms)
        hidden = x.layer(self.context, self.item, self.firsts, False)
        products = self.dots(pooled, context_index, dtype).chunk(self.firsts, 1)
        sums = [torch.add(h, product) for h, product in zip(hidden, products, strict=True)]
        return sums if self.norms else [F.relu_(both) for both in sums]

    def _towers(self, hidden: Sequence[Tensor], generator: torch.Generator | None) -> Sequence[Tensor]:
        """What the towers' hidden layers make of the first ones."""
        chains = [cast(nn.Sequential, chain) for chain in self.towers]
        outputs: dict[int, Tensor] = dict(enumerate(hidden))
        # Level by level, so that a norm costs one exchange for all towers.
        for level in range(max(map(len, chains)) - 1):
            higher = [place for place, chain in enumerate(chains) if level < len(chain) - 1]
            found = self._activated(level + 1, [chains[i][level](outputs[i]) for i in higher], generator)
            outputs |= zip(higher, found, strict=True)
        return list(outputs.values())

    def _activated(
        self, level: int, hidden: Sequence[Tensor], generator: torch.Generator | None
    ) -> Sequence[Tensor]:
        """Layers' outputs as the next ones take them: normed, with ReLU, dropped out."""
        if self.norms:
            hidden = [F.relu_(x) for x in self.norms[level](hidden)]
        if self.config.dropout and generator is not None:
            hidden = [drop_out(x, self.config.dropout, generator) for x in hidden]
        return hidden

    def join(self, hidden: Sequence[Tensor], x: Input) -> Sequence[Tensor]:
        """First layers [B, h1] -> what each tower reads. x: for a model that looks at the input again."""
        return hidden

    def finish(self, hidden: Sequence[Tensor]) -> Sequence[Tensor]:
        """The towers' last hidden layers [B, h] -> their logits [B, 1]."""
        return [self.last(place)(h) for place, h in enumerate(hidden)]

    def last(self, place: int) -> nn.Module:
        """The last layer of a tower, [B, h] -> [B, 1]."""
        return cast(nn.Sequential, self.towers[place])[-1]
