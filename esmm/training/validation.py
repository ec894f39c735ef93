"""A model's probabilities for all impressions of a loader, for validation and prediction."""

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor

from esmm.batch import Batch
from esmm.data.loader import Loader
from esmm.data.schedule import Position
from esmm.model.model import Model
from esmm.training.auc import auc
from esmm.workers.heartbeat import Pulse
from esmm.workers.world import World


def score(model: Model, loader: Loader, world: World) -> Generator[tuple[Batch, Tensor], None, None]:
    """Batches of this rank with p_ctr, p_cvr, p_ctcvr [B, 3], on the CPU.

    All ranks take the same number of steps, since each step looks up rows on every rank.
    """
    model.network.eval()
    with torch.no_grad(), closing(loader.epoch(Position.start(0))) as batches:
        for batch in batches:
            logits, _ = model.forward(batch.to(world.device))
            yield batch, torch.stack(model.network.probabilities(*logits), 1).cpu()


def validation_auc(
    model: Model, loader: Loader, world: World, pulse: Pulse
) -> dict[str, float | None] | None:
    """Exact AUC over all workers' impressions, on rank 0; empty on the others. None where the pulse stops.

    CTR and CTCVR over all impressions, CVR over the clicked ones; None where a class is missing.
    skipped_validation_impressions: that lay in row groups that could not be read; too many: `InputError`.
    """
    scored, training = [], model.network.training
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
    world.agree(lambda: loader.require_enough(skipped))
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
