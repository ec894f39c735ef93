"""ESMM, the entire space multi-task model: Ma et al., SIGIR 2018 (arXiv 1804.07931).

x is what is pooled of an impression: its context's user fields and its own. Two towers read it,

    pCTR   = s(a(x))         the probability of a click                        a: the CTR tower
    pCVR   = s(b(x))         the probability that a click converts             b: the CVR tower
    pCTCVR = pCTR * pCVR     the probability of a click that converts          (equation 1)

and both are learnt from all impressions, clicked or not:

    L = sum BCE(click, pCTR) + sum BCE(click * conversion, pCTCVR)             (equation 3)

No term has pCVR alone. It is what leads from pCTR to pCTCVR, so it is learnt on the impressions that it is
asked about, not on clicked ones only. Towers and losses are this file; what they are made of is in `network`
and `loss`, the arithmetic of a layer in `layers`.
"""

import torch
from torch import Tensor, nn

from esmm.config import ClassWeights, ModelConfig
from esmm.model import input_norm, network
from esmm.model.layers import FirstLayer
from esmm.model.loss import binary_loss, product_logit
from esmm.model.numbers import WithNumbers
from esmm.workers.world import World
from schemas.schema import Schema

TASKS = 2  # the CTR tower and the CVR tower


class Esmm(nn.Module):
    """Pooled fields -> two logits per impression; their probabilities and losses.

    Both towers' first layers are one matrix, W [context; item] = W_c context + W_i item. A context's term
    is computed once and handed to its impressions. schema: says how many fields a context (F_u below) and an
    impression (F_i) have pooled vectors of, and how many numbers (N_u, N_i).
    """

    def __init__(self, config: ModelConfig, schema: Schema, world: World) -> None:
        super().__init__()
        dim = config.embedding_dim
        width = TASKS * config.towers[0]
        self.context = nn.Linear((len(schema.user_fields) + len(schema.user_numbers)) * dim, width)
        of_impression = len(schema.impression_fields) + len(schema.impression_numbers)
        self.item = nn.Linear(of_impression * dim, width, bias=False)
        self.context.bias.requires_grad_(not config.batch_norm)
        self.towers = nn.ModuleList(network.tower(config) for _ in range(TASKS))
        self.norms = network.norms(config, TASKS, world)
        self.input_norm = config.input_norm
        self.dropout = config.dropout
        self.numbers = WithNumbers(schema, dim) if schema.numbers else None

    def initialise(self, embedding_init: float) -> None:
        """torch's default for linear layers, from its global generator. embedding_init: of `ModelConfig`."""
        network.initialise_first_layer(self.context, self.item)
        network.initialise_towers(self.towers)
        if self.numbers:
            self.numbers.initialise(embedding_init)

    def start_at(self, p_ctr: float, p_cvr: float) -> None:
        """Let the untrained towers predict about these rates.

        From 0.5, all impressions without a click would push pCVR far below its rate first, and the few
        conversions of an epoch are too few to bring it back.
        """
        for tower, rate in zip(self.towers, (p_ctr, p_cvr), strict=True):
            network.start_at(tower, rate)

    def forward(
        self,
        pooled: Tensor,
        context_index: Tensor,
        numbers: tuple[Tensor, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits a and b of CTR and CVR, each float32 [B].

        pooled: [U*F_u + B*F_i, D], the fields of each context, then those of each impression.
        context_index: int64 [B], ascending. numbers: [U, N_u] and [B, N_i], where the schema has some. dtype:
        of the matrix products. generator: of dropout, if wanted.
        """
        if self.numbers and numbers:
            pooled = self.numbers(pooled, *numbers)
        parameters = (self.context.weight, self.context.bias, self.item.weight)
        first_layer = input_norm.first_layer if self.input_norm else FirstLayer.apply
        hidden = first_layer(pooled, context_index, *parameters, TASKS, dtype, not self.norms)
        ctr, cvr = network.tower_logits(self.towers, hidden, self.norms, self.dropout, generator)
        return ctr, cvr

    @staticmethod
    def probabilities(ctr: Tensor, cvr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of two logits [B]: p_ctr, p_cvr and p_ctcvr = p_ctr * p_cvr, each [B]."""
        p_ctr = torch.sigmoid(ctr)
        p_cvr = torch.sigmoid(cvr)
        return p_ctr, p_cvr, p_ctr * p_cvr

    @staticmethod
    def loss_sums(
        ctr: Tensor,
        cvr: Tensor,
        click: Tensor,
        conversion: Tensor,
        class_weights: ClassWeights | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """[2]: sums over B impressions of BCE(click, pCTR) and BCE(click * conversion, pCTCVR).

        Logits, labels and weight are float32 [B]. Class weights multiply the terms of positive impressions,
        weight those of its own. Means divide by the number of impressions, not by their weights: so a weight
        changes what its impressions count and leaves the others as they are.
        """
        classes = class_weights or ClassWeights()
        of_clicks = binary_loss(ctr, click, classes.click, weight)
        of_conversions = binary_loss(product_logit(ctr, cvr), click * conversion, classes.conversion, weight)
        return torch.stack([of_clicks, of_conversions])
