"""The learning rates' course over a run, as a factor of the configured rates."""

import math

from esmm.config import ScheduleConfig


def lr_factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """What to multiply both learning rates with in `step`, counted from 1 to total_steps over the whole run.

    Step k of the warm-up has k / warmup_steps. The n steps after it fall from 1, which the first of them
    has, towards final_factor, which a step after the last would have: linearly, the k-th having gone
    (k - 1) / n of the way, or along half a cosine (Loshchilov and Hutter, SGDR, ICLR 2017, without its
    restarts). With hold the first hold * n of them keep 1, and the way begins behind them. So every step
    trains, the only one of a short run too, whatever final_factor is. Steps after total_steps have
    final_factor. A run not longer than its warm-up never decays.
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    if config.decay == "none" or total_steps <= config.warmup_steps:
        return 1.0
    gone = min(1.0, (step - 1 - config.warmup_steps) / (total_steps - config.warmup_steps))
    progress = max(0.0, (gone - config.hold) / (1 - config.hold))
    left = 1 - progress if config.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_factor + (1 - config.final_factor) * left
