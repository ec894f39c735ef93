"""UNBIAS: clicks are sampled so that they look like impressions (Zhang et al., KDD 2016; ESMM paper, 3.2).

A click with the chance pCTR stands for 1 / pCTR impressions like it, so rejection sampling accepts it with a
chance of c / pCTR. Here it counts as much as it would be accepted, which is the draws' expectation. c is
`FLOOR`, and a lower pCTR is taken for it, so that no click counts for more than one.
"""

import torch
from torch import Tensor

from esmm.model.base import Base
from esmm.model.loss import Labels

FLOOR = 0.01


class Unbias(Base):
    """BASE, with clicks that count by the inverse of their chance."""

    def counts(self, ctr: Tensor, labels: Labels) -> Tensor:
        return labels.click * FLOOR / torch.sigmoid(ctr).clamp(min=FLOOR)
