"""The planted world of the demo logs: users, items and the effects that make people click and buy.

Everything is drawn from the seed. Categories, shops, brands and intention nodes belong to departments
(index modulo `DEPARTMENTS`); a smaller index is more popular. Users prefer a few categories, and items
hang on category, shop, brand and nodes, so histories, impressions and labels tell the same story.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cli.errors import InputError
from jobs.demo_logs.items import (
    Effects,
    draw_effects,
    draw_item_ids,
    draw_nodes,
    item_effect,
    items_per_category,
)
from jobs.demo_logs.laws import DEMO, DEPARTMENTS, Array, Strengths, zipf_ranks

# The fields of the logs, those of Ali-CCP (docs/ali_ccp.md). Their order decides which ids each has.
FIELDS = (
    *("101", "121", "122", "124", "125", "126", "127", "128", "129", "109_14", "110_14", "127_14", "150_14"),
    *("205", "206", "207", "210", "216", "508", "509", "702", "853", "301"),
)

LATENT_DIM = 8
PREFERRED = 12  # preferred categories of a user
LARGEST_ID = 10_091_378
MAX_CONTEXTS = 1_000_000
POSITION_SHARE = (0.382, 0.008, 0.61)
SHARE_WITH_PROFILE = 0.87
# 126 and 129 are known for some of those with a profile; these are shares of all users.
SHARE_WITH_CONSUMPTION_1 = 0.42
SHARE_WITH_GEOGRAPHY = 0.64
AGE_SHARE = (0.04, 0.12, 0.25, 0.27, 0.18, 0.10, 0.04)
CONSUMPTION_SHARE = (0.15, 0.70, 0.15)
WORLD_STREAM = 1  # separates the world's random numbers from the plans'


class PlantedWorld(NamedTuple):
    """Read-only arrays that the compiled kernels draw from. Lists are ordered category, shop, brand, node.

    Few arrays, all of 8-byte numbers: the time to compile the kernels grows with their number and kinds.
    """

    inside: Array  # int64 [4]: ids that items use
    sizes: Array  # int64 [4]: ids that histories may hold; those beyond `inside` have no item here
    id_start: Array  # int64 [fields]: first id of each field, in the order of FIELDS
    id_stride: int  # distance between neighbouring ids of a field
    profile: Array  # int64 [users, 8]: values of 121..129, 1-based, 0 missing
    user_category: Array  # int64 [users, PREFERRED]
    user_effect: Array  # float64 [users, 3]: CTR logit, CVR logit, spending power (-1, 0, 1)
    appeal: Array  # float64 [users, DEPARTMENTS, 2]: CTR logit, CVR logit
    category_item: Array  # int64 [categories + 1]: first item of each category, the popular ones first
    item_ids: Array  # int64 [items, 3]: category, shop, brand (-1 none)
    item_node: Array  # int64 [items + 1]: where an item's nodes begin in `node`
    node: Array  # int64
    item_effect: Array  # float64 [items, 3]: CTR logit, CVR logit, CVR logit per step of spending power
    position_share: Array  # float64 [3]
    position_effect: Array  # float64 [3, 2]: CTR logit, CVR logit
    cross_effect: Array  # float64 [4, 2]: slopes of 508, 509, 702, 853 in the CTR and the CVR logit
    user_latent: Array  # float64 [users, K]; K is 0 where the world has no latent vectors
    item_latent: Array  # float64 [items, K, 2]: what u is multiplied with in the CTR and the CVR logit

    @property
    def num_users(self) -> int:
        return self.profile.shape[0]

    @property
    def num_items(self) -> int:
        return self.item_ids.shape[0]


@dataclass(frozen=True)
class Sizes:
    """How many of each kind a world has; `inside` of them belong to items."""

    users: int
    items: int
    inside: tuple[int, int, int, int]
    all: tuple[int, int, int, int]


def world_sizes(contexts: int) -> Sizes:
    """Sizes for a number of training contexts; all but users grow more slowly, so that ids stay learnable."""
    growth = contexts / 8000

    def grown(base: int, power: float, least: int) -> int:
        return DEPARTMENTS * max(1, round(max(least, base * growth**power) / DEPARTMENTS))

    inside = (grown(960, 0.45, 240), grown(7200, 0.8, 720), grown(3600, 0.75, 480), grown(3600, 0.6, 720))
    outside = (
        grown(480, 0.45, 480),
        grown(12000, 0.9, 2400),
        grown(8400, 0.85, 1800),
        grown(2400, 0.6, 1200),
    )
    return Sizes(
        users=max(4, round(0.56 * contexts)),
        items=grown(48_000, 0.8, 2400),
        inside=inside,
        all=tuple(a + b for a, b in zip(inside, outside, strict=True)),  # type: ignore[arg-type]
    )


def id_ranges(sizes: Sizes, items: int) -> tuple[Array, int]:
    """First id of each field and the distance between ids: one id space up to `LARGEST_ID`."""
    category, shop, brand, node = sizes.all
    count = {"101": sizes.users, "205": items, "301": len(POSITION_SHARE)}
    count |= {"109_14": category, "206": category, "508": category, "110_14": shop, "207": shop, "509": shop}
    count |= {"127_14": brand, "216": brand, "702": brand, "150_14": node, "210": node, "853": node}
    count |= {"121": 97, "122": 13, "124": 2, "125": 7, "126": 3, "127": 3, "128": 2, "129": 4}
    counts = np.array([count[name] for name in FIELDS], dtype=np.int64)
    stride = LARGEST_ID // int(counts.sum())
    if stride < 1:
        raise InputError(
            f"the world needs {counts.sum()} ids, expected {LARGEST_ID} or fewer: lower --contexts."
        )
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return 1 + first * stride, stride


def _draw_profiles(rng: np.random.Generator, users: int) -> Array:
    """int64 [users, 8]: fields 121..129; group and category follow gender, age and level."""
    gender = 1 + (rng.random(users) < 0.65)
    age = 1 + rng.choice(7, users, p=AGE_SHARE)
    level = 1 + rng.choice(3, users, p=CONSUMPTION_SHARE)
    group = np.minimum((gender - 1) * 7 + age, 13)
    category = 1 + (group * 7 + level * 2 + rng.integers(0, 3, users)) % 97
    level_1 = np.where(rng.random(users) < 0.8, level, rng.integers(1, 4, users))
    working = 1 + (rng.random(users) < 0.8)
    geography = rng.integers(1, 5, users)
    known = rng.permutation(users) < SHARE_WITH_PROFILE * users
    level_1 = np.where(rng.random(users) < SHARE_WITH_CONSUMPTION_1 / SHARE_WITH_PROFILE, level_1, 0)
    geography = np.where(rng.random(users) < SHARE_WITH_GEOGRAPHY / SHARE_WITH_PROFILE, geography, 0)
    profile = np.stack([category, group, gender, age, level_1, level, working, geography], axis=1)
    return np.where(known[:, None], profile, 0)


def _effect(rng: np.random.Generator, strength: float, *shape: int) -> Array:
    """Effects per value of a profile field, mean 0 and deviation `strength`; value 0 (unknown) has none.

    Standardised, so that few values do not make one seed's world much easier than another's.
    """
    effect = rng.normal(size=shape)
    known = effect[1:]
    effect[1:] = strength * (known - known.mean(axis=0)) / known.std(axis=0)
    effect[0] = 0.0
    return effect


def user_propensity(rng: np.random.Generator, profile: Array, by_profile: float, by_user: float) -> Array:
    """float64 [users]: propensity from gender, age, level and geography, and the user's own."""
    share = by_profile / 2.0  # four fields together give `by_profile`
    total = rng.normal(0.0, by_user, profile.shape[0])
    for column, values in ((2, 2), (3, 7), (5, 3), (7, 4)):
        total += _effect(rng, share, values + 1)[profile[:, column]]
    return total


def draw_appeal(rng: np.random.Generator, profile: Array, strength: float) -> Array:
    """float64 [users, DEPARTMENTS]: what a department means to the user's gender and age."""
    share = strength / np.sqrt(2.0)
    gender = _effect(rng, share, 3, DEPARTMENTS)
    age = _effect(rng, share, 8, DEPARTMENTS)
    return gender[profile[:, 2]] + age[profile[:, 3]]


def draw_interests(rng: np.random.Generator, users: int) -> Array:
    """float64 [users, DEPARTMENTS], about unit variance: latent interests, alike in alike departments."""
    return (
        rng.normal(size=(users, LATENT_DIM))
        @ rng.normal(size=(LATENT_DIM, DEPARTMENTS))
        / np.sqrt(LATENT_DIM)
    )


def draw_preferred(rng: np.random.Generator, department: Array, categories: int) -> Array:
    """A category of each of the departments, popular ones most often; int64, of the same shape."""
    per_department = np.full(department.shape, categories // DEPARTMENTS)
    return zipf_ranks(rng, per_department, 0.8) * DEPARTMENTS + department


def _draw_users(
    rng: np.random.Generator, users: int, categories: int, strengths: Strengths
) -> dict[str, Array]:
    """The user columns of `PlantedWorld`."""
    profile = _draw_profiles(rng, users)
    latent = draw_interests(rng, users)
    appeal_ctr = draw_appeal(rng, profile, strengths.ctr_appeal)
    # Gumbel noise turns the sum of tastes into a draw from a softmax: departments by interest.
    taste = 1.5 * latent + appeal_ctr / max(strengths.ctr_appeal, 1e-9)
    noise = rng.gumbel(size=(users, PREFERRED // 2, DEPARTMENTS))
    department = np.repeat(np.argmax(taste[:, None, :] + noise, axis=2), 2, axis=1)
    category = draw_preferred(rng, department, categories)
    ctr = user_propensity(rng, profile, strengths.ctr_profile, strengths.ctr_user)
    cvr = user_propensity(rng, profile, strengths.cvr_profile, strengths.cvr_user)
    spending = np.where(profile[:, 5] > 0, profile[:, 5] - 2.0, 0.0)
    latent_appeal = appeal_ctr + strengths.ctr_latent * latent
    return {
        "profile": profile,
        "user_category": rng.permuted(category, axis=1),
        "user_effect": np.stack([ctr, cvr, spending], axis=1),
        "appeal": np.stack([latent_appeal, draw_appeal(rng, profile, strengths.cvr_appeal)], axis=2),
    }


def _draw_items(
    rng: np.random.Generator, sizes: Sizes, strengths: Strengths
) -> tuple[dict[str, Array], Effects]:
    """The item columns of `PlantedWorld`, and the effects that theirs is the sum of."""
    categories, shops, brands, nodes = sizes.inside
    per_category = items_per_category(sizes.items, categories)
    category = np.repeat(np.arange(categories), per_category)
    item_ids = draw_item_ids(rng, category, shops, brands)
    item_node, node = draw_nodes(rng, category, nodes)
    effects = draw_effects(rng, (categories, shops, brands), category.shape[0], strengths)
    columns = {
        "category_item": np.concatenate(([0], np.cumsum(per_category))),
        "item_ids": item_ids,
        "item_node": item_node,
        "node": node,
        "item_effect": item_effect(effects, item_ids, strengths),
    }
    return columns, effects


def build_world(seed: int, contexts: int, strengths: Strengths = DEMO) -> PlantedWorld:
    """The world of a seed, sized for `contexts` training contexts; both halves are drawn from it."""
    return build_with_effects(seed, contexts, strengths)[0]


def build_with_effects(seed: int, contexts: int, strengths: Strengths) -> tuple[PlantedWorld, Effects]:
    """The world of `build_world`, and the effects that those of its items are the sums of."""
    rng = np.random.default_rng([seed, WORLD_STREAM])
    sizes = world_sizes(contexts)
    columns = _draw_users(rng, sizes.users, sizes.inside[0], strengths)
    of_items, effects = _draw_items(rng, sizes, strengths)
    columns |= of_items
    id_start, id_stride = id_ranges(sizes, items=columns["item_ids"].shape[0])
    world = PlantedWorld(
        inside=np.array(sizes.inside, dtype=np.int64),
        sizes=np.array(sizes.all, dtype=np.int64),
        id_start=id_start,
        id_stride=id_stride,
        position_share=np.array(POSITION_SHARE),
        position_effect=np.stack([strengths.ctr_position, strengths.cvr_position], axis=1),
        cross_effect=np.stack([strengths.ctr_cross, strengths.cvr_cross], axis=1),
        user_latent=np.zeros((sizes.users, 0)),
        item_latent=np.zeros((columns["item_ids"].shape[0], 0, 2)),
        **columns,
    )
    return world, effects
