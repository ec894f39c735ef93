"""How impressions are cut into slices: a whole number per impression becomes the code of its slice."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.evaluation.users import Shard

MOST_VALUES = 20  # of a cut by value; what is rarer is one slice more


class Cut(NamedTuple):
    """Slices by one number. column: of the predictions; None: the impressions of the user in this set.

    bounds: the upper ends of all slices but the last; values: one slice each, rising, and one for the
    others. Values count where there are no bounds.
    """

    name: str
    column: str | None
    bounds: tuple[int, ...] = ()
    values: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """What the slices are called, in the order of their codes."""
        if not self.bounds:
            return (*(str(value) for value in self.values), "others")
        lows = [0, *(bound + 1 for bound in self.bounds)]
        ends = zip(lows, self.bounds, strict=False)
        closed = (str(low) if low == high else f"{low} to {high}" for low, high in ends)
        return (*closed, f"{lows[-1]} or more")

    def codes(self, shard: Shard) -> npt.NDArray[np.uint8]:
        """[N] the slice of every impression of a shard."""
        if self.column is None:
            return shard.per_row(self._codes(shard.sizes))
        return self._codes(shard.columns[self.column])

    def _codes(self, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        if self.bounds:
            return np.searchsorted(np.array(self.bounds), numbers, side="left").astype(np.uint8)
        if not self.values:
            return np.zeros(len(numbers), np.uint8)
        known = np.array(self.values)
        places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        return np.where(known[places] == numbers, places, len(known)).astype(np.uint8)
