"""What all measurements of training share, ours and the peers': the cases, the clock, the result file.

Standard library only, as the peers run in an environment of their own.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, Self, TypeVar

T = TypeVar("T")

WARM_UP_STEPS = 5


class Case(NamedTuple):
    """What is measured. precision: fp32, or bf16 for autocast of the towers."""

    batch_size: int
    precision: str

    @classmethod
    def parse(cls, text: str) -> Self:
        size, _, precision = text.partition(":")
        if precision not in ("fp32", "bf16"):
            raise argparse.ArgumentTypeError(f"expected a case such as 1024:bf16, found {text!r}")
        return cls(int(size), precision)

    def __str__(self) -> str:
        return f"{self.batch_size}:{self.precision}"


class Feed(Generic[T]):
    """Hands out batches: some to warm up, then as many as `seconds` or `max_steps` allow.

    The time of a batch lasts from when it is asked for until the consumer asks for the next one: making it
    and training on it. steps, elapsed: of what came after the warm-up. notes: what else the consumer found.
    """

    def __init__(
        self,
        batches: Iterator[T],
        seconds: float = math.inf,
        max_steps: float = math.inf,
        warm_up: int = WARM_UP_STEPS,
    ) -> None:
        self._batches = batches
        self._seconds = seconds
        self._max_steps = max_steps
        self._warm_up = warm_up
        self.steps = 0
        self.elapsed = 0.0
        self.notes: dict[str, float] = {}

    def __iter__(self) -> Iterator[T]:
        for _ in range(self._warm_up):
            yield next(self._batches)
        begin = time.perf_counter()
        while self.elapsed < self._seconds and self.steps < self._max_steps:
            yield next(self._batches)
            self.steps += 1
            self.elapsed = time.perf_counter() - begin


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all measurements take."""
    made = argparse.ArgumentParser(
        program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--cases", type=Case.parse, nargs="+", required=True, help="such as 1024:fp32")
    made.add_argument("--seconds", type=float, default=4.0, help="of each case (default %(default)s)")
    made.add_argument("--out", required=True, help="JSON file to write")
    return made


def run_cases(args: argparse.Namespace, run: Callable[[Case], "Feed[T]"]) -> None:
    """Every case once; impressions/s of each go to args.out.

    run: trains on a feed until it ends and returns it. A bf16 case that raises RuntimeError is recorded as
    not possible: not every model works under autocast.
    """
    results: dict[str, dict[str, float | str]] = {}
    for case in args.cases:
        try:
            feed = run(case)
        except RuntimeError as error:
            if case.precision == "fp32":
                raise
            results[str(case)] = {"error": str(error).splitlines()[0]}
            continue
        rate = feed.steps * case.batch_size / feed.elapsed
        results[str(case)] = {
            "impressions_per_second": rate, "steps": feed.steps, "seconds": feed.elapsed, **feed.notes
        }  # fmt: skip
    Path(args.out).write_text(json.dumps(results))
