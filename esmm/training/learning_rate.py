"""The learning rates' course over a run, as a factor of the configured rates."""

import math

from esmm.config import ScheduleConfig


def factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """What to multiply both learning rates with in `step`, counted from 1 to total_steps over the whole run.

    It rises linearly, reaches 1 at step warmup_steps, and falls from there, so that step total_steps has
    final_factor: linearly, or along half a cosine (Loshchilov and Hutter, SGDR, ICLR 2017, without its
    restarts). A step after total_steps has what that one has. A run not longer than its warm-up never decays.
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    if config.decay == "none" or total_steps <= config.warmup_steps:
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / (total_steps - config.warmup_steps))
    left = 1 - progress if config.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_factor + (1 - config.final_factor) * left
