"""The planted world of the demo logs: users, items and the effects that make people click and buy.

Everything is drawn from the seed. Categories, shops, brands and intention nodes belong to departments
(index modulo `DEPARTMENTS`); a smaller index is more popular. Users prefer a few categories, and items
hang on category, shop, brand and nodes, so histories, impressions and labels tell the same story.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cli.errors import InputError

Array = np.ndarray

# The fields of the logs, those of Ali-CCP (docs/ali_ccp.md). Their order decides which ids each has.
FIELDS = (
    *("101", "121", "122", "124", "125", "126", "127", "128", "129", "109_14", "110_14", "127_14", "150_14"),
    *("205", "206", "207", "210", "216", "508", "509", "702", "853", "301"),
)

DEPARTMENTS = 24
LATENT_DIM = 8
PREFERRED = 12  # preferred categories of a user
NODES_PER_CATEGORY = 14  # an item's nodes lie in a window of this many of its department's nodes
MAX_NODES = 20  # nodes of one item; keeps a skeleton row within 50 features
LARGEST_ID = 10_091_378
MAX_CONTEXTS = 1_000_000
POSITION_SHARE = (0.382, 0.008, 0.61)
SHARE_WITH_PROFILE = 0.87
SHARE_WITH_BRAND = 0.71
# 126 and 129 are known for some of those with a profile; these are shares of all users.
SHARE_WITH_CONSUMPTION_1 = 0.42
SHARE_WITH_GEOGRAPHY = 0.64
AGE_SHARE = (0.04, 0.12, 0.25, 0.27, 0.18, 0.10, 0.04)
CONSUMPTION_SHARE = (0.15, 0.70, 0.15)
WORLD_STREAM = 1  # separates the world's random numbers from the plans'


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


def zipf_ranks(rng: np.random.Generator, sizes: Array, exponent: float) -> Array:
    """One rank below each of `sizes`, density about 1 / (rank + 1)^exponent."""
    power = 1.0 - exponent
    ranks = (1.0 + rng.random(sizes.shape) * ((sizes + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.minimum(ranks.astype(np.int64) - 1, sizes - 1)


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


def _user_effect(rng: np.random.Generator, profile: Array, by_profile: float, by_user: float) -> Array:
    """float64 [users]: propensity from gender, age, level and geography, and the user's own."""
    share = by_profile / 2.0  # four fields together give `by_profile`
    total = rng.normal(0.0, by_user, profile.shape[0])
    for column, values in ((2, 2), (3, 7), (5, 3), (7, 4)):
        total += _effect(rng, share, values + 1)[profile[:, column]]
    return total


def _appeal(rng: np.random.Generator, profile: Array, strength: float) -> Array:
    """float64 [users, DEPARTMENTS]: what a department means to the user's gender and age."""
    share = strength / np.sqrt(2.0)
    gender = _effect(rng, share, 3, DEPARTMENTS)
    age = _effect(rng, share, 8, DEPARTMENTS)
    return gender[profile[:, 2]] + age[profile[:, 3]]


def _draw_users(
    rng: np.random.Generator, users: int, categories: int, strengths: Strengths
) -> dict[str, Array]:
    """The user columns of `PlantedWorld`."""
    profile = _draw_profiles(rng, users)
    latent = (
        rng.normal(size=(users, LATENT_DIM))
        @ rng.normal(size=(LATENT_DIM, DEPARTMENTS))
        / np.sqrt(LATENT_DIM)
    )
    appeal_ctr = _appeal(rng, profile, strengths.ctr_appeal)
    # Gumbel noise turns the sum of tastes into a draw from a softmax: departments by interest.
    taste = 1.5 * latent + appeal_ctr / max(strengths.ctr_appeal, 1e-9)
    noise = rng.gumbel(size=(users, PREFERRED // 2, DEPARTMENTS))
    department = np.repeat(np.argmax(taste[:, None, :] + noise, axis=2), 2, axis=1)
    per_department = np.full(department.shape, categories // DEPARTMENTS)
    category = zipf_ranks(rng, per_department, 0.8) * DEPARTMENTS + department
    ctr = _user_effect(rng, profile, strengths.ctr_profile, strengths.ctr_user)
    cvr = _user_effect(rng, profile, strengths.cvr_profile, strengths.cvr_user)
    spending = np.where(profile[:, 5] > 0, profile[:, 5] - 2.0, 0.0)
    latent_appeal = appeal_ctr + strengths.ctr_latent * latent
    return {
        "profile": profile,
        "user_category": rng.permuted(category, axis=1),
        "user_effect": np.stack([ctr, cvr, spending], axis=1),
        "appeal": np.stack([latent_appeal, _appeal(rng, profile, strengths.cvr_appeal)], axis=2),
    }


def _draw_nodes(rng: np.random.Generator, category: Array, nodes: int) -> tuple[Array, Array]:
    """Distinct nodes of each item, mean about 6.1: (starts int64 [items + 1], nodes int64)."""
    wanted = np.minimum(1 + rng.negative_binomial(3, 3 / (3 + 6.3), category.shape[0]), MAX_NODES)
    item = np.repeat(np.arange(category.shape[0]), wanted)
    per_department = nodes // DEPARTMENTS
    window = (category[item] // DEPARTMENTS) * 5
    near = window + zipf_ranks(rng, np.full(item.shape, NODES_PER_CATEGORY), 0.5)
    far = zipf_ranks(rng, np.full(item.shape, per_department), 0.7)
    rank = np.where(rng.random(item.shape) < 0.65, near, far) % per_department
    node = rank * DEPARTMENTS + category[item] % DEPARTMENTS
    pairs = np.unique(item * nodes + node)
    starts = np.searchsorted(pairs, np.arange(category.shape[0] + 1) * nodes)
    return starts, pairs % nodes


def _draw_items(rng: np.random.Generator, sizes: Sizes, strengths: Strengths) -> dict[str, Array]:
    """The item columns of `PlantedWorld`."""
    categories, shops, brands, nodes = sizes.inside
    weight = (np.arange(categories) + 5.0) ** -0.75
    per_category = np.maximum(3, np.round(sizes.items * weight / weight.sum())).astype(np.int64)
    category = np.repeat(np.arange(categories), per_category)
    items = category.shape[0]
    department = category % DEPARTMENTS
    shop = zipf_ranks(rng, np.full(items, shops // DEPARTMENTS), 0.6) * DEPARTMENTS + department
    brand = zipf_ranks(rng, np.full(items, brands // DEPARTMENTS), 0.7) * DEPARTMENTS + department
    has_brand = rng.random(items) < SHARE_WITH_BRAND
    item_node, node = _draw_nodes(rng, category, nodes)

    lure = rng.normal(size=categories)
    mixed = strengths.cvr_click_bait * lure + np.sqrt(1 - strengths.cvr_click_bait**2) * rng.normal(
        size=categories
    )

    def quality(by_category: Array, by_shop: float, by_brand: float, by_item: float) -> Array:
        of_brand = np.where(has_brand, rng.normal(0, by_brand, brands)[brand], 0.0)
        return (
            by_category[category]
            + rng.normal(0, by_shop, shops)[shop]
            + of_brand
            + rng.normal(0, by_item, items)
        )

    price = 0.85 * rng.normal(size=categories)[category] + 0.53 * rng.normal(size=shops)[shop]
    ctr = quality(strengths.ctr_category * lure, strengths.ctr_shop, strengths.ctr_brand, strengths.ctr_item)
    cvr = quality(strengths.cvr_category * mixed, strengths.cvr_shop, strengths.cvr_brand, strengths.cvr_item)
    return {
        "category_item": np.concatenate(([0], np.cumsum(per_category))),
        "item_ids": np.stack([category, shop, np.where(has_brand, brand, -1)], axis=1),
        "item_node": item_node,
        "node": node,
        "item_effect": np.stack([ctr, cvr, strengths.cvr_price * price], axis=1),
    }


def build_world(seed: int, contexts: int, strengths: Strengths = Strengths()) -> PlantedWorld:
    """The world of a seed, sized for `contexts` training contexts; both halves are drawn from it."""
    rng = np.random.default_rng([seed, WORLD_STREAM])
    sizes = world_sizes(contexts)
    columns = _draw_users(rng, sizes.users, sizes.inside[0], strengths) | _draw_items(rng, sizes, strengths)
    id_start, id_stride = id_ranges(sizes, items=columns["item_ids"].shape[0])
    return PlantedWorld(
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
