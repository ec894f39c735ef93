"""What the ranks agree on while they step: has one been told to stop, is a checkpoint due by the clock?

SIGTERM reaches the ranks at different steps and their clocks differ, yet all must leave the loop or save
between the same two steps. Asking the others at every step would cost an exchange each; about once a
second is often enough.
"""

import time

import torch

from esmm.workers.world import World

SECONDS = 1.0  # between two exchanges
MOST_STEPS = 1000


class Pulse:
    """stop: all ranks end the run now. save_due: `save_minutes` (0: never) have passed since `saved`.

    Both are the same on all ranks, and change only in `beat`.
    """

    def __init__(self, world: World, save_minutes: float) -> None:
        self.world = world
        self.save_minutes = save_minutes
        self.stop = False
        self.save_due = False
        self._every = 1  # steps per exchange
        self._left = 1  # steps to the next one
        self._last = time.perf_counter()
        self._saved = self._last

    def beat(self) -> None:
        """To be called once between two steps."""
        self._left -= 1
        if self._left:
            return
        now = time.perf_counter()
        due = self.save_minutes and now - self._saved >= 60 * self.save_minutes
        mine = [int(self.world.stop.requested)]
        mine += [int(bool(due)), self._steps_per_exchange(now)] if self.world.is_rank_zero else [0, 0]
        agreed = torch.tensor(mine)
        self.world.all_reduce_([agreed], "pulse")
        stop, save, self._every = agreed.tolist()
        self.stop = stop > 0
        self.save_due = save > 0
        self._left = self._every
        self._last = time.perf_counter()

    def saved(self) -> None:
        """A checkpoint has just been written: the clock starts again."""
        self.save_due = False
        self._saved = time.perf_counter()

    def _steps_per_exchange(self, now: float) -> int:
        """As many as take a second, by the last ones; at most twice as many as before, as speeds vary."""
        if self.world.size == 1:
            return 1
        steps = int(SECONDS * self._every / max(now - self._last, 1e-6))
        return min(max(steps, 1), 2 * self._every, MOST_STEPS)
