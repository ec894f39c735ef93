"""Dropout whose masks are a function of the seed, the step and the rank: a resumed run draws them again."""

import numpy as np
import torch
from torch import Tensor

LEVELS = 1 << 16  # a share is a multiple of 1 / LEVELS


def step_generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The random numbers of one rank in one step. They differ with the number of workers."""
    (mixed,) = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(mixed))


def drop_out(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """x with about this share of its numbers set to 0 and the others raised, so that the mean stays.

    Srivastava et al., JMLR 2014. A number costs 16 random bits; torch's own dropout draws 32 or more for
    each and takes several times as long on a CPU.
    """
    dropped = min(round(share * LEVELS), LEVELS - 1)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    words.random_(torch.iinfo(torch.int64).min, None, generator=generator)  # all 64 bits
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = bits >= dropped - LEVELS // 2
    return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
