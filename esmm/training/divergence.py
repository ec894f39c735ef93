"""Watches a training for numbers that are not finite, and keeps the batch that they came with.

from esmm.training.divergence import load_batch
batch = load_batch("RUN/bad_batch-step-120-rank-0.safetensors")
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from esmm.batch import TENSORS, Batch
from esmm.embedding.bags import Bags
from esmm.workers.world import AgreedError, World
from schemas import schema_file

NEVER = 2**62
ADVICE = (
    "If the samples are sound, try a smaller optimizer.sparse.learning_rate or "
    "optimizer.dense.learning_rate, or optimizer.clip_grad_norm. The last good checkpoint, if any, is in "
    "the run folder."
)


class Guard:
    """Looks at every step of this rank; `check` tells all ranks what any of them has seen.

    On a CPU it knows at once, and keeps the batch of the first bad step. On a GPU that would make every
    step wait, so that the step is known at the next `check` and its batch only if it was the last one.
    """

    def __init__(self, path: Path, world: World) -> None:
        self.path = path
        self.world = world
        self.knows_at_once = world.device.type == "cpu"
        # 2 * step, + 1 where only the gradients were bad: those are all ranks' and say less of a batch.
        self.first = torch.full((), NEVER, dtype=torch.int64, device=world.device)
        self.step = 0
        self.batch: Batch | None = None

    def watch(self, step: int, batch: Batch, losses: Tensor, gradients: list[Tensor]) -> None:
        """One step: its number, this rank's batch and losses, and gradients or sums of them."""
        if not self.knows_at_once or self.first == NEVER:
            self.step = step
            self.batch = batch
        loss_is_bad = ~losses.isfinite().all()
        total = torch.stack([gradient.sum() for gradient in gradients]).sum()
        code = torch.where(loss_is_bad, 2 * step, torch.where(total.isfinite(), NEVER, 2 * step + 1))
        torch.minimum(self.first, code, out=self.first)

    def check(self) -> None:
        """`AgreedError` where any rank has seen a bad step; the first one's batch is saved if it is there.

        All ranks call it together.
        """
        seen = torch.zeros(self.world.size, dtype=torch.int64)
        seen[self.world.rank] = self.first.cpu()
        self.world.all_reduce_([seen], "guard")
        first = int(seen.min())
        if first == NEVER:
            return
        step = first // 2
        what = "gradient" if first % 2 else "loss"
        ranks = (seen == first).nonzero().view(-1).tolist()
        saved = self.knows_at_once or self.step == step
        with self.world.agree():
            if saved and self.world.rank in ranks:
                self._save(step)
        raise AgreedError(
            f"training diverged: the {what} is not finite in step {step}, on rank "
            f"{', '.join(map(str, ranks))}. {self._where(step, ranks, saved)} {ADVICE}"
        )

    def _save(self, step: int) -> None:
        assert self.batch is not None and self.step == step
        save_batch(self.path / bad_batch_name(step, self.world.rank), self.batch)

    def _where(self, step: int, ranks: list[int], saved: bool) -> str:
        if not saved:
            return "To have the batch saved, go on with --resume --set train.log_every=1."
        paths = ", ".join(str(self.path / bad_batch_name(step, rank)) for rank in ranks)
        return f"Look at the weights in {paths} (esmm.training.divergence.load_batch reads it)."


def bad_batch_name(step: int, rank: int) -> str:
    return f"bad_batch-step-{step}-rank-{rank}.safetensors"


def save_batch(path: Path, batch: Batch) -> None:
    """Write what a rank's step was given: bags, labels, numbers and which context an impression belongs to.

    num_fields: int64 [2], of the user and of each impression.
    """
    found = {name: getattr(batch, name) for name in TENSORS}
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    tensors |= {f"bags.{name}": tensor for name, tensor in vars(batch.bags).items()}
    tensors["num_fields"] = torch.tensor([batch.num_user_fields, batch.num_impression_fields])
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(path))


def load_batch(path: str | Path) -> Batch:
    """The batch that `save_batch` has written; without its request (esmm.embedding.row_request)."""
    tensors = load_file(str(path))
    bags = Bags(*(tensors[f"bags.{name}"] for name in ("ids", "weights", "offsets")))
    user, impression = _num_fields(tensors)
    found: dict[str, Any] = {name: tensors[name] for name in TENSORS if name in tensors}
    return Batch(bags=bags, num_user_fields=user, num_impression_fields=impression, **found)


def _num_fields(tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Of user and impression. The first releases did not say: they knew the default schema alone."""
    if "num_fields" in tensors:
        user, impression = tensors["num_fields"].tolist()
        return user, impression
    schema = schema_file.default()
    return len(schema.user_fields), len(schema.impression_fields)
