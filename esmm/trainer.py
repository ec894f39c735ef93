"""The epochs of a run: train, log, validate, checkpoint."""

import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from esmm import checkpoint
from esmm.config import Config
from esmm.data import Loader
from esmm.distributed import AgreedError, World
from esmm.run_folder import RunFolder
from esmm.scoring import validation_auc
from esmm.step import TrainStep

log = logging.getLogger(__name__)


class Meter:
    """Losses and speed since the last report, over all workers.

    The losses stay on the device between reports: reading them would make a GPU wait at every step.
    """

    def __init__(self, world: World, loader: Loader) -> None:
        self.world, self.loader = world, loader
        self._begin()

    def _begin(self) -> None:
        self.losses = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        self.steps, self.impressions = 0, 0
        self.started, self.waited = time.perf_counter(), self.loader.wait_seconds

    def add(self, losses: Tensor, impressions: int) -> None:
        """One step: this rank's summed losses [2], all ranks' impressions."""
        self.losses += losses
        self.steps += 1
        self.impressions += impressions

    def report(self) -> dict[str, float]:
        """Mean losses, impressions/s of all workers, share of the time that the workers waited for data."""
        waited = torch.tensor([self.loader.wait_seconds - self.waited], dtype=torch.float64)
        totals = torch.cat([self.losses.cpu(), waited])
        self.world.sum_([totals], "report")
        ctr, ctcvr, waited_all = totals.tolist()
        seconds = time.perf_counter() - self.started
        result = {
            "loss_ctr": ctr / self.impressions,
            "loss_ctcvr": ctcvr / self.impressions,
            "impressions_per_second": self.impressions / seconds,
            "loader_share": waited_all / self.world.size / seconds,
        }
        self._begin()
        return result


class Trainer:
    """Trains a model on one loader and validates it on another. run is None on all ranks but 0."""

    def __init__(
        self,
        config: Config,
        trained: TrainStep,
        train: Loader,
        valid: Loader,
        path: Path,
        run: RunFolder | None,
    ) -> None:
        self.config, self.trained, self.world = config, trained, trained.world
        self.train, self.valid, self.path, self.run = train, valid, path, run

    def fit(self) -> dict[str, Any]:
        """All epochs; returns the last one's record, on rank 0 with its validation AUCs."""
        record: dict[str, Any] = {}
        for epoch in range(1, self.config.train.epochs + 1):
            started = time.perf_counter()
            self._train_epoch(epoch)
            seconds = time.perf_counter() - started
            scores = validation_auc(self.trained.model, self.valid, self.world)
            fingerprint = self.train.manifest["fingerprint"]
            checkpoint.save(self.path, self.config, fingerprint, epoch, self.trained, self.world)
            record = {
                "kind": "epoch",
                "epoch": epoch,
                "step": self.trained.step,
                "train_seconds": seconds,
                **scores,
            }
            self._record(record)
            log.info(
                "epoch %d of %d: %.0f s, validation %s",
                epoch,
                self.config.train.epochs,
                seconds,
                describe(scores),
            )
        return record

    def _train_epoch(self, epoch: int) -> None:
        meter, every = Meter(self.world, self.train), self.config.train.log_every
        hidden = not (self.world.is_first and sys.stderr.isatty())
        with tqdm(
            total=self.train.steps, desc=f"epoch {epoch}", unit="step", disable=hidden, leave=False
        ) as bar:
            for index, batch in enumerate(self.train.epoch(epoch)):
                impressions = self.train.schedule.global_batch_size(index)
                meter.add(self.trained(batch.to(self.world.device), impressions), impressions)
                bar.update()
                if meter.steps == every or index + 1 == self.train.steps:
                    self._report(epoch, index + 1, meter.report(), bar)

    def _report(self, epoch: int, step: int, values: dict[str, float], bar: "tqdm[Any]") -> None:
        bar.clear()
        line = "epoch %d step %d/%d  loss ctr %.5f ctcvr %.5f  %.0f impressions/s  loader %.0f %%"
        numbers = (values["loss_ctr"], values["loss_ctcvr"], values["impressions_per_second"])
        log.info(line, epoch, step, self.train.steps, *numbers, 100 * values["loader_share"])
        if not math.isfinite(values["loss_ctr"] + values["loss_ctcvr"]):
            raise AgreedError(
                f"training diverged: the loss is {values['loss_ctr']} (CTR), {values['loss_ctcvr']} (CTCVR) "
                f"at step {self.trained.step}. Try a smaller optimizer.sparse.learning_rate or "
                "optimizer.dense.learning_rate. The last good checkpoint, if any, is left in the run folder."
            )
        self._record({"kind": "train", "epoch": epoch, "step": self.trained.step, **values})

    def _record(self, entry: dict[str, Any]) -> None:
        if self.run:
            self.run.record(entry)


def describe(scores: dict[str, Any]) -> str:
    """Validation AUCs in one line; those without both classes are undefined."""
    names = {"auc_ctr": "AUC CTR", "auc_cvr": "CVR on clicked", "auc_ctcvr": "CTCVR"}
    shown = {key: "undefined" if scores.get(key) is None else f"{scores[key]:.4f}" for key in names}
    return ", ".join(f"{name} {shown[key]}" for key, name in names.items())
