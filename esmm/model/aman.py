"""AMAN, all missing as negative: Pan et al., ICDM 2008, as the ESMM paper compares with it (section 3.2).

Impressions without a click are drawn as negatives at a rate, `model.negative_rate`. Here each of them counts
as much as it would be drawn, so that the loss is the draws' expectation and has no noise of theirs.
"""

from torch import Tensor

from esmm.model.base import Base
from esmm.model.loss import Labels

RATE = 0.2


class Aman(Base):
    """BASE, with unclicked impressions as negatives."""

    UNCLICKED = True

    def counts(self, ctr: Tensor, labels: Labels) -> Tensor:
        """1 for clicks, the rate for the others; their conversion label is 0."""
        rate = self.config.negative_rate or RATE
        return labels.click + rate * (1 - labels.click)
