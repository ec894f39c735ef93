"""Which device the workers of a run compute on: GPUs where each of them has one of its own, else the CPU."""

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cli.errors import InputError

ON_CPU = "take the CPU (train.device=cpu; of esmm.predict: --device cpu)"


@dataclass(frozen=True)
class Seat:
    """What a worker finds where it runs.

    visible: CUDA_VISIBLE_DEVICES, by which a launcher may give each worker of a host other GPUs. gpus: how
    many of these torch can use. nccl: whether Horovod was built to exchange what lies on GPUs.
    """

    host: str
    visible: str
    gpus: int
    nccl: bool

    @classmethod
    def here(cls, alone: bool) -> "Seat":
        """This worker's. alone: it exchanges nothing, so it needs no Horovod."""
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return cls(
            socket.gethostname(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), gpus, alone or _has_nccl()
        )


def choose(wish: str, rank: int, seats: Sequence[Seat]) -> tuple[torch.device, str]:
    """The device of a rank, of the same type on all ranks; and why not a GPU where there are some.

    wish: `train.device`. seats: of all ranks. `InputError` where this rank shall have a GPU and cannot.
    """
    own = [seat for seat in seats if seat == seats[rank]]
    hindrance = _hindrance(own if wish == "cuda" else seats)
    if wish == "cuda" and hindrance:
        raise InputError(f"train.device: cuda: expected a GPU for each worker, but {hindrance}")
    if wish == "cpu" or hindrance:
        there_are_some = wish == "auto" and any(seat.gpus for seat in seats)
        return torch.device("cpu"), hindrance if there_are_some else ""
    return torch.device("cuda", seats[:rank].count(seats[rank])), ""


def _hindrance(seats: Sequence[Seat]) -> str:
    """What keeps the workers from having a GPU each, with what to do; nothing where they can."""
    for seat, workers in Counter(seats).items():
        if not seat.gpus:
            return f"torch sees no GPU on {seat.host}. Look at nvidia-smi there, or {ON_CPU}."
        if workers > seat.gpus:
            return (
                f"{seat.host} has {workers} workers and {seat.gpus} GPU(s) for them. "
                f"Start as many workers as GPUs there, or {ON_CPU}."
            )
        if not seat.nccl:
            return (
                f"Horovod on {seat.host} was built without NCCL, which exchanges what lies on GPUs. `make "
                f"setup` tells what is missing there. Or start a single worker, or {ON_CPU}."
            )
    return ""


def _has_nccl() -> bool:
    import horovod.torch as hvd

    return bool(hvd.nccl_built())
