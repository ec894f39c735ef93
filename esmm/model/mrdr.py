"""MRDR, more robust doubly robust: Guo et al., SIGIR 2021 (arXiv 2105.13623), in ESCM2-DR's frame.

The guess e' of pCVR's error is learnt so that the doubly robust loss varies little, not only so that it is
right: clicks that nobody expected, whose weight makes it vary, count more.

    L_imputation = sum click (1 - [pCTR]) / [pCTR]^2 (e - e')^2

    L = L_ctr + 0.1 L_cvr + L_ctcvr + 0.1 L_imputation,     L_cvr as in `escm2_dr`

The paper's double learning, two models that take turns, is left out: both towers learn in every step.
"""

from torch import Tensor

from esmm.model.escm2_dr import Escm2Dr


class Mrdr(Escm2Dr):
    """ESCM2-DR with another imputation."""

    def trust(self, chance: Tensor) -> Tensor:
        return (1 - chance) / chance
