"""What every model of this folder is to training and prediction.

A model is the file of its name: `models.network_class` finds it. Most are towers over one embedding
(`SharedTowers`), some are networks of their own for each task (`Apart`).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cli.errors import InputError
from esmm.model.loss import Labels
from esmm.model_config import LossConfig, ModelConfig
from esmm.workers.world import World
from schemas.numbers import Statistics
from schemas.schema import Schema

TASKS = 2  # CTR and CVR, in this order; what else a model has towers for comes after them
ENTIRE_SPACE = {"ctr": 1.0, "ctcvr": 1.0}  # losses over all impressions, as ESMM has them
ON_CLICKS = {"ctr": 1.0, "cvr": 1.0}  # each task's own: pCVR over the clicked impressions


class Rates(NamedTuple):
    """What untrained models predict: clicks of impressions, conversions and actions of clicks."""

    ctr: float
    cvr: float
    action: float = 0.5


class Network(nn.Module):
    """Pooled fields -> logits per impression; their probabilities and losses.

    TABLES: parts of a row of the embedding that different networks read. ACTIONS: whether the losses ask for
    `Labels.action`, so that samples must have it. UNCLICKED: whether there have to be impressions without a
    click. losses: what `loss_sums` gives, in its order, with the weight of each in the sum unless the
    configuration says otherwise.
    """

    TABLES: ClassVar[int] = 1
    ACTIONS: ClassVar[bool] = False
    UNCLICKED: ClassVar[bool] = False
    losses: Mapping[str, float] = ENTIRE_SPACE

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        """schema: of the samples. world: the workers, which some layers have to ask."""
        super().__init__()
        self.losses = self.losses_of(config)
        self.config = config
        self.world = world

    @classmethod
    def row_width(cls, config: ModelConfig) -> int:
        """Numbers that a row of the embedding holds."""
        return cls.TABLES * config.embedding_dim

    @classmethod
    def losses_of(cls, config: ModelConfig) -> Mapping[str, float]:
        """`losses`, where they depend on options."""
        return cls.losses

    def initialise(self) -> None:
        """Start values, from torch's global generator."""
        raise NotImplementedError

    def start_at(self, rates: Rates) -> None:
        """Let the untrained model predict about these rates.

        From 0.5, all impressions without a click would push pCVR far below its rate first, and the few
        conversions of an epoch are too few to bring it back.
        """
        raise NotImplementedError

    def set_statistics(self, found: Mapping[str, Statistics]) -> None:
        """Of the numbers of the training samples, by name."""
        raise NotImplementedError

    def forward(
        self,
        pooled: Tensor,
        context_index: Tensor,
        numbers: tuple[Tensor, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """The logits of the towers, each float32 [B].

        pooled: [U*F_u + B*F_i, row_width], the fields of each of U contexts, then those of each of B
        impressions. context_index: int64 [B], ascending. numbers: [U, N_u] and [B, N_i], where the schema has
        some. dtype: of the matrix products. generator: of dropout, if wanted.
        """
        raise NotImplementedError

    @staticmethod
    def probabilities(*logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the logits [B]: p_ctr, p_cvr and p_ctcvr = p_ctr * p_cvr, each [B]."""
        p_ctr, p_cvr = (torch.sigmoid(logit) for logit in logits[:TASKS])
        return p_ctr, p_cvr, p_ctr * p_cvr

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """`losses`, each summed over B impressions. All ranks call it together."""
        raise NotImplementedError

    @classmethod
    def loss_weights(cls, config: ModelConfig, told: LossConfig) -> list[float]:
        """The weight of each loss in the sum; `InputError` for that of a loss that this model has not."""
        losses = cls.losses_of(config)
        wanted = told.task_weights.model_dump(exclude_none=True)
        for name in sorted(wanted.keys() - losses.keys() - ENTIRE_SPACE.keys()):
            raise InputError(
                f"loss.task_weights.{name}: model {config.name} has no such loss, it has "
                f"{' and '.join(losses)}. Take it out, or choose another model.name."
            )
        return [wanted.get(name, default) for name, default in losses.items()]


def by_division(*logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p_ctr, p_cvr = p_ctcvr / p_ctr and p_ctcvr, of the logits of pCTR and pCTCVR.

    Nothing keeps the second from being above the first: there it is taken for it, so that p_cvr is 1.
    """
    p_ctr, p_ctcvr = (torch.sigmoid(logit) for logit in logits[:TASKS])
    p_ctcvr = torch.minimum(p_ctcvr, p_ctr)
    return p_ctr, p_ctcvr / p_ctr, p_ctcvr
