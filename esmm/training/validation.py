"""A model's probabilities for all impressions of a loader, and the exact AUC of them."""

from collections.abc import Generator
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.model.model import Model
from esmm.workers.heartbeat import Pulse
from esmm.workers.world import World
from schemas.train_log import Scores


def score(model: Model, loader: Loader, world: World) -> Generator[tuple[Batch, Tensor], None, None]:
    """Batches of this rank with p_ctr, p_cvr, p_ctcvr [B, 3], on the CPU.

    All ranks take the same number of steps, since each step looks up rows on every rank.
    """
    model.network.eval()
    with torch.no_grad(), closing(loader.epoch(Position.start(0))) as batches:
        for batch in batches:
            logits, _ = model.forward(batch.to(world.device))
            yield batch, torch.stack(model.network.probabilities(*logits), 1).cpu()


def validation_auc(model: Model, loader: Loader, world: World, pulse: Pulse) -> Scores | None:
    """Exact AUC over all workers' impressions, on rank 0; empty on the others. None where the pulse stops.

    CTR and CTCVR over all impressions, CVR over the clicked ones; None where a class is missing.
    skipped_validation_impressions: that lay in row groups that could not be read; too many: `InputError`.
    """
    scored = []
    training = model.network.training
    with closing(score(model, loader, world)) as batches:
        for batch, scores in batches:
            scored.append(torch.cat([scores, batch.click.unsqueeze(1), batch.conversion.unsqueeze(1)], 1))
            pulse.beat()
            if pulse.stop:
                break
    model.network.train(training)
    if pulse.stop:
        return None
    rows = world.gather(torch.cat(scored), "validation")
    skipped = 0 if rows is None else loader.num_impressions - len(rows)
    with world.agree():
        loader.require_enough(skipped)
    if rows is None:
        return {}
    p_ctr, p_cvr, p_ctcvr, click, conversion = rows.numpy().T
    clicked = click > 0
    return {
        "auc_ctr": auc(p_ctr, click),
        "auc_cvr": auc(p_cvr[clicked], conversion[clicked]),
        "auc_ctcvr": auc(p_ctcvr, click * conversion),
        "skipped_validation_impressions": skipped,
    }


def auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.generic]) -> float | None:
    """Area under the ROC curve: the probability that a positive scores above a negative, a tie counting half.

    scores [N], labels [N] of 0 and 1; None where undefined. This is the Mann-Whitney statistic, summed in
    whole numbers over the distinct scores: each positive beats the negatives below it and draws with those
    at its score.
    """
    _, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, weights=labels != 0).astype(np.int64)
    negative = np.bincount(group).astype(np.int64) - positive
    pairs = int(positive.sum()) * int(negative.sum())
    if pairs == 0:
        return None
    below = np.cumsum(negative) - negative
    return int((positive * (2 * below + negative)).sum()) / (2 * pairs)
