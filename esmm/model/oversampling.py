"""OVERSAMPLING: converted clicks are repeated (Weiss, SIGKDD Explorations 2004; ESMM paper, section 3.2).

Each counts `model.positive_times` times in L_cvr. The probabilities rise with it; the order is what AUC sees.
"""

from torch import Tensor

from esmm.model.base import Base
from esmm.model.loss import Labels

TIMES = 5.0


class Oversampling(Base):
    """BASE, with copies of converted clicks."""

    def counts(self, ctr: Tensor, labels: Labels) -> Tensor:
        times = self.config.positive_times or TIMES
        return labels.click * (1 + (times - 1) * labels.conversion)
