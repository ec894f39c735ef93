"""Writing checkpoints: all ranks together, to a hidden name first, whole or not at all.

A process may be killed and a disk may be full at any moment: a checkpoint's files are on the disk before
its folder gets the name that readers look for, and an older one is only removed afterwards.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cli.errors import InputError
from esmm.checkpoints import choosing, former
from esmm.checkpoints.files import (
    DENSE_FILE,
    STATE_FILE,
    checkpoint_folder,
    complete_checkpoints,
    sha256_of,
    step_of,
    sync,
    table_file,
)
from esmm.checkpoints.loading import ROWS
from esmm.checkpoints.run_folder import sync_log
from esmm.checkpoints.state import FORMAT, State
from esmm.config import Config
from esmm.data.schedule import Position
from esmm.training.divergence import ADVICE
from esmm.training.progress import Progress
from esmm.training.train_step import TrainStep
from esmm.workers.world import AgreedError, World
from schemas.manifest import Manifest, numbering


@dataclass(frozen=True)
class Origin:
    """What a run's checkpoints have in common: configuration and samples; see `State`."""

    config: Config
    fingerprint: str
    schema: dict[str, Any]
    samples: str

    @classmethod
    def of(cls, config: Config, manifest: Manifest) -> "Origin":
        """manifest: of the training samples."""
        return cls(config, manifest["fingerprint"], numbering(manifest), digest_of_files(manifest))


def digest_of_files(manifest: Manifest) -> str:
    """What a data position depends on: the files' names, sizes and row groups."""
    return hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()[:16]


def save(
    run: Path, origin: Origin, position: Position, progress: Progress, trained: TrainStep, world: World
) -> Path:
    """Write run/checkpoints/step-N with all ranks, then remove the oldest beyond `train.keep_checkpoints`.

    The checkpoint of the best validation stays too. Where a rank cannot write, all raise one `InputError`
    and the checkpoints that stood there before still do; so too where the model has diverged.
    """
    _refuse_broken(trained)
    final = checkpoint_folder(run, trained.step)
    partial = final.with_name(f".{final.name}.partial")
    name = table_file(world.rank, world.size)
    try:
        with world.agree(), _writing(partial):
            if world.is_rank_zero:
                _make_empty(partial)
        with world.agree(), _writing(partial):
            _write(partial / name, _table_tensors(trained))
        sums = _table_sums(partial / name, world)
        with world.agree(), _writing(partial):
            if world.is_rank_zero:
                _finish(partial, final, origin, position, progress, trained, sums)
    except InputError:
        if world.is_rank_zero:
            shutil.rmtree(partial, ignore_errors=True)
            choosing.put_back(run)
        raise
    if world.is_rank_zero:
        former.forget(run)
        config = origin.config.train
        _remove_old(
            run, config.keep_checkpoints, progress.best_step if config.early_stopping_patience else None
        )
    return final


def _refuse_broken(trained: TrainStep) -> None:
    """Its gradients may have been finite and the step too long all the same."""
    tensors = [trained.model.embedding.table, *trained.model.network.state_dict().values()]
    extremes = [torch.stack(torch.aminmax(tensor.float())) for tensor in tensors if tensor.numel()]
    broken = (~torch.isfinite(torch.cat(extremes))).sum()
    trained.world.all_reduce_([broken], "broken")
    if broken:
        raise AgreedError(
            f"training diverged: numbers of the model are not finite after step {trained.step}. {ADVICE}"
        )


@contextmanager
def _writing(partial: Path) -> Iterator[None]:
    """What keeps a checkpoint from being written is an `InputError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        kept = [folder.name for folder in complete_checkpoints(partial.parents[1])]
        raise InputError(
            f"{partial}: the checkpoint could not be saved ({error}). "
            f"Checkpoints that are whole: {', '.join(kept) or 'none'}. "
            "Check the folder and the space left there, then go on with --resume."
        ) from error


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file and see that it is on the disk."""
    save_file(tensors, path)
    sync(path)


def _table_sums(path: Path, world: World) -> dict[str, str]:
    """Checksums of all ranks' files by name, on rank 0; nothing on the others."""
    mine = torch.frombuffer(bytearray(sha256_of(path)), dtype=torch.uint8).unsqueeze(0)
    sums = world.gather(mine, "checksums")
    if sums is None:
        return {}
    return {table_file(rank, world.size): bytes(row.tolist()).hex() for rank, row in enumerate(sums)}


def _finish(
    partial: Path,
    final: Path,
    origin: Origin,
    position: Position,
    progress: Progress,
    trained: TrainStep,
    sums: dict[str, str],
) -> None:
    """What rank 0 adds to the ranks' shards, and the name that makes them a checkpoint."""
    _write(partial / DENSE_FILE, _dense_tensors(trained))
    embedding = trained.model.embedding
    state = State(
        format=FORMAT,
        step=trained.step,
        world_size=trained.world.size,
        num_rows=embedding.num_rows,
        fingerprint=origin.fingerprint,
        config=origin.config,
        sha256={**sums, DENSE_FILE: sha256_of(partial / DENSE_FILE).hex()},
        position=position,
        schema=origin.schema,
        samples=origin.samples,
        scale=embedding.scale,
        progress=progress,
    )
    sync_log(final.parents[1])
    (partial / STATE_FILE).write_text(state.to_json())
    sync(partial / STATE_FILE)
    sync(partial)
    _publish(partial, final)


def _publish(partial: Path, final: Path) -> None:
    """Give a checkpoint its name. One of the same step, saved earlier, stays until then: see `put_back`."""
    replaced = final.with_name(f".{final.name}{choosing.REPLACED}")
    if final.exists():
        final.rename(replaced)
    partial.rename(final)
    sync(final.parent)
    if replaced.exists():
        shutil.rmtree(replaced)


def _table_tensors(trained: TrainStep) -> dict[str, Tensor]:
    """This rank's rows and their optimiser state: on a CPU the tensors themselves, not copies."""
    tensors = {ROWS: trained.model.embedding.table, **trained.sparse.state}
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _dense_tensors(trained: TrainStep) -> dict[str, Tensor]:
    network = trained.model.network
    tensors = {f"network.{name}": tensor.cpu() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in trained.dense.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = value.cpu()
    return tensors


def _remove_old(run: Path, keep: int, best: int | None) -> None:
    for folder in complete_checkpoints(run)[:-keep]:
        if step_of(folder) != best:
            shutil.rmtree(folder)
