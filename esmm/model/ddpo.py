"""DDPO, direct dual propensity optimisation: Su et al., SIGIR 2024.

A third tower r^c learns conversions of clicks, and what it says, a constant there, is the label of pCVR where
there is no click:

    L_teacher = sum click BCE(conversion, r^c)
    L_cvr = N sum_clicked w BCE(min(1, conversion + [r^c]), pCVR) / sum_clicked w,  w = 1 / [pCTR]
          + N sum_others v BCE([r^c], pCVR) / sum_others v,                         v = 1 / (1 - [pCTR])

    L = L_ctr + L_ctcvr + L_cvr + L_teacher

N and the sums of w and v are those of a step's impressions of all workers. So both terms of L_cvr are means
beside those of the other losses; the authors' code takes the mean of terms that are normalised already, which
makes them smaller by the batch size: `loss.task_weights.cvr` can have it so.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from esmm.model.loss import Labels, click_loss, conversion_loss, entire_space_loss, propensity, soft_terms
from esmm.model.network import TASKS, Rates
from esmm.model.shared_towers import SharedTowers

LOSSES = {"ctr": 1.0, "ctcvr": 1.0, "cvr": 1.0, "auxiliary": 1.0}


class Ddpo(SharedTowers):
    """ESMM with soft labels where there is no click."""

    TOWERS = TASKS + 1
    losses = LOSSES

    def starts(self, rates: Rates) -> Sequence[float]:
        return rates.ctr, rates.cvr, rates.cvr

    def loss_sums(self, logits: Sequence[Tensor], labels: Labels) -> Tensor:
        """[4]: L_ctr, L_ctcvr, L_cvr and L_teacher."""
        ctr, cvr, teacher = logits
        chance, told = propensity(ctr), torch.sigmoid(teacher.detach())
        target = torch.where(labels.click > 0, (labels.both + told).clamp(max=1.0), told)
        errors = soft_terms(cvr, target, labels.epsilon)
        weights = torch.stack([labels.click / chance, (1 - labels.click) / (1 - chance)])
        dual = (labels.times(self._normalised(weights).sum(0)) * errors).sum()
        own = click_loss(ctr, labels), entire_space_loss(ctr, cvr, labels)
        return torch.stack([*own, dual, conversion_loss(teacher, labels, labels.click)])

    def _normalised(self, weights: Tensor) -> Tensor:
        """[2, B], each row times the number of impressions over its sum, of all workers."""
        sums = torch.cat([weights.sum(1), weights.new_full((1,), weights.shape[1])])
        self.world.all_reduce_([sums], "ddpo")
        return weights * (sums[2] / sums[:2].clamp(min=1e-6)).unsqueeze(1)
