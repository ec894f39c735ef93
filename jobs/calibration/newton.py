"""The line of each task that makes the labels most likely, by Newton's iterations."""

from collections.abc import Callable

import numpy as np

from jobs.calibration.sums import Counts, Point, Sums

SMALLEST_STEP = 1e-10
MOST_PASSES = 100
START: Point = (1.0, 0.0)  # probabilities as they are

Summed = Callable[[list[Point]], list[Sums]]


class Descent:
    """One task's way down: where it stands, with its sums there, and the step that is tried from there."""

    def __init__(self, point: Point, sums: Sums) -> None:
        self.first = self.sums = sums
        self.point = np.array(point)
        self.step = _step(sums)

    @property
    def done(self) -> bool:
        return bool(np.abs(self.step).max() < SMALLEST_STEP * max(1.0, np.abs(self.point).max()))

    @property
    def tried(self) -> Point:
        """Where sums are wanted next."""
        a, b = self.point if self.done else self.point + self.step
        return float(a), float(b)

    def take(self, sums: Sums) -> None:
        """Go to the point that was tried, or half as far where the log loss has risen there."""
        if self.done:
            return
        if sums.loss > self.sums.loss * (1 + 1e-12):
            self.step = self.step / 2
        else:
            self.point, self.sums = self.point + self.step, sums
            self.step = _step(sums)


def _step(sums: Sums) -> np.ndarray:
    found: np.ndarray = -np.linalg.solve(sums.hessian, sums.gradient)
    return found


def descend(summed: Summed, num_tasks: int) -> list[Descent]:
    """All tasks in the same passes. summed: the sums of every task at its point, in one pass.

    The log loss is convex and its minimum exists (`obstacle`), so that Newton's step, halved where it goes
    too far, always comes down to it.
    """
    tasks = [Descent(START, sums) for sums in summed([START] * num_tasks)]
    for _ in range(MOST_PASSES):
        if all(task.done for task in tasks):
            return tasks
        for task, sums in zip(tasks, summed([task.tried for task in tasks]), strict=True):
            task.take(sums)
    raise ArithmeticError(f"no minimum after {MOST_PASSES} passes, at {[task.tried for task in tasks]}")


def obstacle(counts: Counts) -> str | None:
    """Why no line is the best one; None where one is.

    It is if and only if each label has a row, and neither label lies all above the other.
    """
    if counts.positives in (0, counts.rows):
        return f"{counts.positives:,} positives of {counts.rows:,} rows"
    if counts.highest[0] <= counts.lowest[1] or counts.highest[1] <= counts.lowest[0]:
        found = f"all {counts.positives:,} positives of {counts.rows:,} rows"
        return f"a probability that parts {found} from the others"
    return None
