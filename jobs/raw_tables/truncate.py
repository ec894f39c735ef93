"""Lists of tables cut to the length that a schema allows them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.fields import Keep

Array = npt.NDArray[Any]


def kept(ends: Array, weights: Array, most: int, keep: Keep) -> tuple[Array, Array]:
    """Which elements stay, bool [T], where each list has at most so many, and the new ends, int64 [N + 1].

    ends: int64 [N + 1]; list n has the elements ends[n] to ends[n + 1]. weights: float32 [T], used only
    where the heaviest stay; of equal weights those that come first.
    """
    sizes = np.diff(ends)
    place = np.arange(ends[-1]) - np.repeat(ends[:-1], sizes)
    if keep == "last":
        place = np.repeat(sizes, sizes) - 1 - place
    elif keep == "heaviest":
        owner = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((place, -weights, owner))  # lists stay where they are
        place = place[np.argsort(order)]
    return place < most, np.append(0, np.cumsum(np.minimum(sizes, most)))
