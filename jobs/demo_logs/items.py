"""Items of the planted world: what they belong to, and what that brings to the logits."""

from typing import NamedTuple

import numpy as np

from jobs.demo_logs.laws import DEPARTMENTS, Array, Strengths, zipf_ranks

NODES_PER_CATEGORY = 14  # an item's nodes lie in a window of this many of its department's nodes
MAX_NODES = 20  # nodes of one item; keeps a skeleton row within 50 features
SHARE_WITH_BRAND = 0.71


class Effects(NamedTuple):
    """What an item's effect is the sum of. Columns: CTR logit, CVR logit, price."""

    category: Array  # float64 [categories, 3]
    shop: Array  # float64 [shops, 3]
    brand: Array  # float64 [brands, 3]
    item: Array  # float64 [items, 3]: each item's own


def items_per_category(items: int, categories: int) -> Array:
    """int64 [categories]: about `items` together, more in popular categories."""
    weight = (np.arange(categories) + 5.0) ** -0.75
    return np.maximum(3, np.round(items * weight / weight.sum())).astype(np.int64)


def draw_item_ids(rng: np.random.Generator, category: Array, shops: int, brands: int) -> Array:
    """int64 [items, 3]: `category`, and a shop and a brand (-1 none) of its department."""
    items = category.shape[0]
    department = category % DEPARTMENTS
    shop = zipf_ranks(rng, np.full(items, shops // DEPARTMENTS), 0.6) * DEPARTMENTS + department
    brand = zipf_ranks(rng, np.full(items, brands // DEPARTMENTS), 0.7) * DEPARTMENTS + department
    has_brand = rng.random(items) < SHARE_WITH_BRAND
    return np.stack([category, shop, np.where(has_brand, brand, -1)], axis=1)


def draw_nodes(rng: np.random.Generator, category: Array, nodes: int) -> tuple[Array, Array]:
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


def draw_effects(
    rng: np.random.Generator, inside: tuple[int, int, int], items: int, strengths: Strengths
) -> Effects:
    """Effects of categories, shops and brands, of which `inside` belong to items, and of the items' own."""
    categories, shops, brands = inside
    lure = rng.normal(size=categories)
    mixed = strengths.cvr_click_bait * lure + np.sqrt(1 - strengths.cvr_click_bait**2) * rng.normal(
        size=categories
    )
    price = 0.85 * rng.normal(size=categories)
    shop_price = 0.53 * rng.normal(size=shops)

    def own(by_brand: float, by_shop: float, by_item: float) -> tuple[Array, Array, Array]:
        return rng.normal(0, by_brand, brands), rng.normal(0, by_shop, shops), rng.normal(0, by_item, items)

    ctr = own(strengths.ctr_brand, strengths.ctr_shop, strengths.ctr_item)
    cvr = own(strengths.cvr_brand, strengths.cvr_shop, strengths.cvr_item)
    return Effects(
        np.stack([strengths.ctr_category * lure, strengths.cvr_category * mixed, price], axis=1),
        np.stack([ctr[1], cvr[1], shop_price], axis=1),
        np.stack([ctr[0], cvr[0], np.zeros(brands)], axis=1),
        np.stack([ctr[2], cvr[2], np.zeros(items)], axis=1),
    )


def item_effect(effects: Effects, item_ids: Array, strengths: Strengths) -> Array:
    """float64 [items, 3]: CTR logit, CVR logit, CVR logit per step of spending power."""
    category, shop, brand = item_ids.T
    of_brand = np.where(brand[:, None] >= 0, effects.brand[brand], 0.0)
    total = effects.category[category] + effects.shop[shop] + of_brand + effects.item
    return total * (1.0, 1.0, strengths.cvr_price)
