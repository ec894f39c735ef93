"""What every model of this folder is: first layers over an impression's input, towers, losses.

A model says what it adds, in its own file: what joins the first layers (`join`), what ends the towers
(`finish`), its probabilities and its losses. `models` finds it by its name.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli.errors import InputError
from esmm.config import LossConfig, ModelConfig
from esmm.model import towers
from esmm.model.dropout import drop_out
from esmm.model.inputs import Input, Inputs, sizes
from esmm.model.loss import Labels
from esmm.model.numbers import WithNumbers
from esmm.workers.world import World
from schemas.schema import Schema

TASKS = 2  # the CTR tower and the CVR tower, in this order; further towers come after them


class Network(nn.Module):
    """Pooled fields -> logits per impression; their probabilities and losses.

    All first layers are one matrix, W [context; item] = W_c context + W_i item. schema: says how many fields
    a context (F_u below) and an impression (F_i) have pooled vectors of, and how many numbers (N_u, N_i).

    LOSSES: what `loss_sums` gives, in its order, with the weight of each in the sum unless the configuration
    says otherwise. TABLES: how many vectors of `embedding_dim` numbers a row of the embedding holds.
    """

    LOSSES: ClassVar[Mapping[str, float]] = MappingProxyType({"ctr": 1.0, "ctcvr": 1.0})
    TABLES: ClassVar[int] = 1

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__()
        self.firsts, num_towers = self.num_first(config), self.num_towers(config)
        width = self.firsts * config.towers[0]
        of_context, of_item = sizes(config, schema)
        self.context = nn.Linear(of_context, width)
        self.item = nn.Linear(of_item, width, bias=False)
        self.context.bias.requires_grad_(not config.batch_norm)
        self.towers = nn.ModuleList(towers.tower(config) for _ in range(num_towers))
        self.norms = towers.norms(config, self.firsts, num_towers, world)
        self.inputs = Inputs(config, of_context, of_item)
        self.dropout = config.dropout
        self.world = world
        self.numbers = WithNumbers(schema, config.embedding_dim) if schema.numbers else None

    @classmethod
    def num_first(cls, config: ModelConfig) -> int:
        """First layers side by side: a tower's each, unless a model says otherwise."""
        return cls.num_towers(config)

    @classmethod
    def num_towers(cls, config: ModelConfig) -> int:
        """Towers, each with its logit."""
        return TASKS

    @classmethod
    def loss_weights(cls, config: LossConfig) -> list[float]:
        """The weight of each loss in the sum; `InputError` for that of a loss that this model has not."""
        wanted = config.task_weights.model_dump(exclude_none=True)
        for name in wanted.keys() - cls.LOSSES.keys() - {"ctr", "ctcvr"}:
            raise InputError(
                f"loss.task_weights.{name}: this model has no such loss; expected one of "
                f"{', '.join(cls.LOSSES)}, found {name}. Take it out, or choose another model.name."
            )
        return [wanted.get(name, default) for name, default in cls.LOSSES.items()]

    def initialise(self, embedding_init: float) -> None:
        """torch's default for linear layers, from its global generator. embedding_init: of `ModelConfig`."""
        towers.initialise_first_layer(self.context, self.item)
        towers.initialise(self.towers.modules())
        if self.numbers:
            self.numbers.initialise(embedding_init)
        known = {self.context, self.item, *self.towers.modules()}
        towers.initialise(module for module in self.modules() if module not in known)

    def start_at(self, p_ctr: float, p_cvr: float) -> None:
        """Let the untrained towers predict about these rates.

        From 0.5, all impressions without a click would push pCVR far below its rate first, and the few
        conversions of an epoch are too few to bring it back.
        """
        for tower, rate in zip(self.towers[:TASKS], (p_ctr, p_cvr), strict=True):
            towers.start_at(tower, rate)

    def forward(
        self,
        pooled: Tensor,
        context_index: Tensor,
        numbers: tuple[Tensor, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """The towers' logits, each float32 [B].

        pooled: [U*F_u + B*F_i, D], the fields of each context, then those of each impression.
        context_index: int64 [B], ascending. numbers: [U, N_u] and [B, N_i], where the schema has some. dtype:
        of the matrix products. generator: of dropout, if wanted.
        """
        if self.numbers and numbers:
            pooled = self.numbers(pooled, *numbers)
        x = self.inputs(pooled, context_index, dtype)
        hidden = x.layer(self.context, self.item, self.firsts, not self.norms)
        hidden = self.join(self._activated(0, hidden, generator), x)
        chains = [cast(nn.Sequential, chain) for chain in self.towers]
        # Level by level, so that a norm costs one exchange for all towers.
        for level in range(len(chains[0]) - 1):
            hidden = [chain[level](h) for chain, h in zip(chains, hidden, strict=True)]
            hidden = self._activated(level + 1, hidden, generator)
        return tuple(logit.float().squeeze(1) for logit in self.finish(hidden))

    def _activated(
        self, level: int, hidden: Sequence[Tensor], generator: torch.Generator | None
    ) -> Sequence[Tensor]:
        """Layers' outputs as the next ones take them: normed, with ReLU, dropped out."""
        if self.norms:
            hidden = [F.relu_(x) for x in self.norms[level](hidden)]
        if self.dropout and generator is not None:
            hidden = [drop_out(x, self.dropout, generator) for x in hidden]
        return hidden

    def join(self, hidden: Sequence[Tensor], x: Input) -> Sequence[Tensor]:
        """First layers [B, h1] -> what each tower reads. x: for a model that looks at the input again."""
        return hidden

    def finish(self, hidden: Sequence[Tensor]) -> Sequence[Tensor]:
        """The towers' last hidden layers [B, h] -> their logits [B, 1]."""
        return [cast(nn.Sequential, chain)[-1](h) for chain, h in zip(self.towers, hidden, strict=True)]

    @staticmethod
    def probabilities(ctr: Tensor, cvr: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the logits [B]: p_ctr, p_cvr and p_ctcvr = p_ctr * p_cvr, each [B]."""
        p_ctr = torch.sigmoid(ctr)
        p_cvr = torch.sigmoid(cvr)
        return p_ctr, p_cvr, p_ctr * p_cvr

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """`LOSSES`, each summed over B impressions. All ranks call it together."""
        raise NotImplementedError
