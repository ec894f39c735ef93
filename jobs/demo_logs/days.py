"""The additive world of a day: that of the day before, a little changed.

Day 1 is the world of the seed. From one day to the next every effect x goes on as

    x' = keep x + sqrt(1 - keep^2) fresh        an AR(1) process: Box and Jenkins, Time Series Analysis

whose variance stays, so that later days are as hard as early ones. A few items give way to new ones, which
have ids, shops, brands and effects of their own; a new item takes the place of the old one in its category,
with its popularity and its nodes. Users and their profiles stay. A day replays those before it, which takes
no drawing of logs; it depends on the seed, the size of the world and the day's number alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jobs.demo_logs.chunks import Split
from jobs.demo_logs.draw import ITEM
from jobs.demo_logs.items import Effects, draw_effects, draw_item_ids, item_effect
from jobs.demo_logs.laws import DEMO, DEPARTMENTS, Array, Strengths
from jobs.demo_logs.plan import draw_plan
from jobs.demo_logs.world import (
    LARGEST_ID,
    PlantedWorld,
    build_with_effects,
    draw_appeal,
    draw_interests,
    draw_preferred,
    user_propensity,
)

DAY_STREAM = 4  # separates the days' random numbers from the world's and the plans'
HALVES = 2  # plans 0 and 1 are those of the halves
IDS_PER_DAY = 10**8  # sample_ids set aside for a day: more than the largest one has impressions


@dataclass(frozen=True)
class Drift:
    """What a day keeps of the day before. keep: correlation of an effect with itself a day later."""

    keep_category: float = 0.90  # fashions: what is clicked and bought
    keep_shop: float = 0.90  # campaigns of shops
    keep_brand: float = 0.90  # and of brands
    keep_item: float = 0.90  # an item's own
    keep_user: float = 0.95  # users' propensities, by profile and their own
    keep_appeal: float = 0.90  # what departments mean to users
    moved: float = 0.03  # share of a user's preferred categories that give way to another of the department
    renewed: float = 0.03  # share of items that give way to new ones


class Day(NamedTuple):
    """A day's world."""

    world: PlantedWorld
    item_id: Array  # int64 [items]: the items' ids in the logs; all above `LARGEST_ID` are new since day 1
    effects: Effects  # those that the items' effects are the sums of


def draw_day(seed: int, contexts: int, day: int, drift: Drift = Drift(), strengths: Strengths = DEMO) -> Day:
    """The world of a day, 1 or later. contexts: of a day, the same every day, as they size the world."""
    world, effects = build_with_effects(seed, contexts, strengths)
    item_id = world.id_start[ITEM] + world.id_stride * np.arange(world.num_items)
    today = Day(world, item_id, effects)
    for number in range(2, day + 1):
        rng = np.random.default_rng([seed, DAY_STREAM, number])
        today = _next_day(rng, today, drift, strengths)
    return today


def whole_day(seed: int, contexts: int, day: int) -> tuple[PlantedWorld, Split]:
    """A day's world, and its logs: sample_ids and contexts are those of no other day."""
    today = draw_day(seed, contexts, day)
    plan = draw_plan(seed, HALVES + day, contexts, today.world)
    return today.world, Split("day", "", plan, day * IDS_PER_DAY + 1, today.item_id)


def _next_day(rng: np.random.Generator, day: Day, drift: Drift, strengths: Strengths) -> Day:
    world = _change_users(rng, day.world, drift, strengths)
    shops, brands = (int(size) for size in world.inside[1:3])
    renewed = rng.random(world.num_items) < drift.renewed
    new_ids = draw_item_ids(rng, world.item_ids[:, 0], shops, brands)
    item_ids = np.where(renewed[:, None], new_ids, world.item_ids)
    effects = _change_effects(rng, day.effects, renewed, drift, strengths)
    item_id = day.item_id.copy()
    # The last id ever given is still there, unless it is renewed now.
    item_id[renewed] = max(LARGEST_ID, int(item_id.max())) + 1 + np.arange(renewed.sum())
    world = world._replace(item_ids=item_ids, item_effect=item_effect(effects, item_ids, strengths))
    return Day(world, item_id, effects)


def _change_users(
    rng: np.random.Generator, world: PlantedWorld, drift: Drift, strengths: Strengths
) -> PlantedWorld:
    """Users with the propensities, the tastes and a few preferred categories of the next day."""
    profile, preferred = world.profile, world.user_category
    interests = strengths.ctr_latent * draw_interests(rng, world.num_users)
    appeal = [draw_appeal(rng, profile, s) for s in (strengths.ctr_appeal, strengths.cvr_appeal)]
    propensity = [
        user_propensity(rng, profile, strengths.ctr_profile, strengths.ctr_user),
        user_propensity(rng, profile, strengths.cvr_profile, strengths.cvr_user),
    ]
    user_effect = world.user_effect.copy()  # its third column, spending power, is of the profile
    user_effect[:, :2] = _drifted(user_effect[:, :2], np.stack(propensity, axis=1), drift.keep_user)
    fresh_appeal = np.stack([appeal[0] + interests, appeal[1]], axis=2)
    others = draw_preferred(rng, preferred % DEPARTMENTS, int(world.inside[0]))
    return world._replace(
        user_category=np.where(rng.random(preferred.shape) < drift.moved, others, preferred),
        user_effect=user_effect,
        appeal=_drifted(world.appeal, fresh_appeal, drift.keep_appeal),
    )


def _change_effects(
    rng: np.random.Generator, effects: Effects, renewed: Array, drift: Drift, strengths: Strengths
) -> Effects:
    """Effects of the next day; renewed items (bool [items]) have none of the old ones' own."""
    categories, shops, brands, items = (len(part) for part in effects)
    fresh = draw_effects(rng, (categories, shops, brands), items, strengths)
    own = _drifted(effects.item, fresh.item, drift.keep_item)
    return Effects(
        _drifted(effects.category, fresh.category, drift.keep_category),
        _drifted(effects.shop, fresh.shop, drift.keep_shop),
        _drifted(effects.brand, fresh.brand, drift.keep_brand),
        np.where(renewed[:, None], fresh.item, own),
    )


def _drifted(effect: Array, fresh: Array, keep: float) -> Array:
    """The effect a day later; its variance stays where that of `fresh` is the same."""
    return keep * effect + np.sqrt(1.0 - keep**2) * fresh
