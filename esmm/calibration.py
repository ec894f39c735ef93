"""Probabilities of a model, mended by the lines of a calibration."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from esmm.batch import Batch
from schemas.calibration import TASKS, Calibration, calibrated

LOG = logging.getLogger(__name__)


def apply(found: Calibration, scored: Iterator[tuple[Batch, Tensor]]) -> Iterator[tuple[Batch, Tensor]]:
    """Batches with their probabilities, float32 [B, 3]: pCTR and pCVR by their lines, pCTCVR their product.

    Each line rises: impressions keep their order, but for neighbours that float32 makes one.
    """
    lines = [found["tasks"][task] for task in TASKS]
    for batch, scores in scored:
        exact = scores[:, : len(TASKS)].double().unbind(1)
        p = [calibrated(raw, line["a"], line["b"]).float() for raw, line in zip(exact, lines, strict=True)]
        yield batch, torch.stack([*p, p[0] * p[1]], 1)


def warn_of_another(path: str, found: Calibration, run: str, step: int) -> None:
    """Say so where the lines were fitted to predictions of another model. path: of the calibration."""
    fitted = found["fitted_on"]
    if (fitted.get("run"), fitted.get("step")) != (run, step):
        LOG.warning(
            "%s was fitted to step %s of %s and is applied to step %s of %s",
            path,
            fitted.get("step"),
            fitted.get("run"),
            step,
            run,
        )
