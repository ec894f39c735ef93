"""The events of torch's profiler as a table of the stages of a training step."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

STEP = "step"
WAIT = "loader_wait"
MEANING = {
    WAIT: "wait for a batch of the loader",
    "plan": "read what the other workers ask for",
    "pool": "gather rows and pool them; merge the gradients of equal rows",
    "exchange": "wait for vectors and gradients of other workers",
    "forward": "towers forward, loss",
    "backward": "towers backward",
    "sparse_update": "optimiser of the rows",
    "dense_update": "optimiser of the towers",
    STEP: "the rest, the wait for the towers' summed gradients included",
}


def stage_seconds(events: Iterable[Any]) -> Counter[str]:
    """Seconds inside every named range, without those of the ranges in it.

    events: `torch.profiler.profile.events()`. Ranges outside of a step are left out.
    """
    seconds: Counter[str] = Counter()
    for event in filter(_is_stage, events):
        around = _stage_around(event)
        if event.name != STEP and around is None:
            continue
        duration = (event.time_range.end - event.time_range.start) / 1e6
        seconds[event.name] += duration
        if around is not None:
            seconds[around.name] -= duration
    return seconds


def _is_stage(event: Any) -> bool:
    return bool(event.is_user_annotation) and "#" not in event.name  # torch's own have one


def _stage_around(event: Any) -> Any:
    parent = event.cpu_parent
    while parent is not None and not _is_stage(parent):
        parent = parent.cpu_parent
    return parent


def table(seconds: Counter[str], steps: int, batch_size: int) -> str:
    """A line per stage: milliseconds per step and share of the whole."""
    total = seconds.total()
    order = [*MEANING, *(name for name in seconds if name not in MEANING)]
    lines = [f"{'stage':<16}{'ms/step':>10}{'share':>9}   what it is"]
    for name in order:
        if name in seconds:
            spent = seconds[name]
            lines.append(
                f"{name:<16}{1e3 * spent / steps:>10.2f}{spent / total:>9.1%}   {MEANING.get(name, '')}"
            )
    rate = steps * batch_size / total
    lines.append(f"{'all':<16}{1e3 * total / steps:>10.2f}{1:>9.1%}   {rate:,.0f} impressions/s")
    return "\n".join(lines)
