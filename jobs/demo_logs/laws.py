"""By which laws the planted worlds are drawn: how strong their effects are, and how popular ids are."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

DEPARTMENTS = 24


@dataclass(frozen=True)
class Strengths:
    """Standard deviations and slopes of the effects on the two logits.

    Category, position and demographics are learnt from a demo in one epoch. What hangs on one user or one
    rare item mostly is not, and the slopes of the cross fields, whose ids are embedded one by one, only in
    part: these raise the best reachable AUC more than what a model reaches.
    """

    ctr_category: float = 0.55  # some categories are clicked more
    ctr_shop: float = 0.13  # some shops are
    ctr_brand: float = 0.13  # some brands are
    ctr_item: float = 0.10  # mostly out of reach: items are rare
    ctr_user: float = 0.10  # mostly out of reach: users are rare
    ctr_profile: float = 0.45  # gender, age, consumption level, geography: each has its own propensity
    ctr_appeal: float = 0.18  # department x gender, department x age
    ctr_latent: float = 0.10  # department x the user's latent interests, seen through the history
    ctr_position: tuple[float, float, float] = (0.62, 1.00, -0.40)  # by value of field 301
    ctr_cross: tuple[float, float, float, float] = (0.17, 0.20, 0.15, 0.08)  # slopes of 508, 509, 702, 853
    cvr_category: float = 0.36  # some categories are bought more, once clicked
    cvr_click_bait: float = -0.30  # correlation of the category's CVR effect with its CTR effect
    cvr_shop: float = 0.10  # some shops sell better
    cvr_brand: float = 0.10  # some brands do
    cvr_item: float = 0.06  # mostly out of reach
    cvr_user: float = 0.06  # mostly out of reach
    cvr_profile: float = 0.65  # as ctr_profile, drawn apart from it
    cvr_appeal: float = 0.10  # as ctr_appeal, drawn apart from it
    cvr_price: float = 0.20  # the user's spending power x the item's price: dear things suit some
    cvr_position: tuple[float, float, float] = (0.70, 0.20, -0.44)  # by value of field 301
    cvr_cross: tuple[float, float, float, float] = (0.14, 0.25, 0.18, 0.08)  # slopes of 508, 509, 702, 853


DEMO = Strengths()


def zipf_ranks(rng: np.random.Generator, sizes: Array, exponent: float) -> Array:
    """One rank below each of `sizes`, density about 1 / (rank + 1)^exponent."""
    power = 1.0 - exponent
    ranks = (1.0 + rng.random(sizes.shape) * ((sizes + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.minimum(ranks.astype(np.int64) - 1, sizes - 1)
