"""A planted world of latent vectors, as matrix factorisation assumes it: Koren, Bell and Volinsky, 2009.

Users have a vector u, items a vector v, and apart from the items' own biases the logits are bilinear:

    CTR: u . A v + b        CVR: u . B v + c        A, B: rotations, drawn apart from each other

Nothing in the logs is u or v. A user's vector shows in the history, whose categories are those that the user
likes, and in the profile; an item's in its department, category, shop and brand. So a model gets nowhere
that adds up what fields say one by one: it has to find the products.
"""

from dataclasses import fields
from typing import Any

import numpy as np

from jobs.demo_logs.laws import DEPARTMENTS, Array, Strengths, zipf_ranks
from jobs.demo_logs.world import PlantedWorld, build_world

LATENT_DIM = 4
LATENT_STREAM = 3  # separates these random numbers from the world's and the plans'
CTR_STRENGTH, CVR_STRENGTH = 1.0, 1.0  # deviation of the bilinear part of each logit
LEANING = 3.0  # how strongly users keep to the categories of their liking
PREFERRED = 24  # preferred categories of a user
CANDIDATES = 192  # categories that a user has ever come across
BLOCK = 4096  # users drawn at once
SHARE_OF_PROFILE = 0.2  # of the variance of u, told by gender, age, level and geography
# What an item's vector is made of, as shares of its variance; `item`: its own.
SHARES = {"department": 0.60, "category": 0.30, "shop": 0.05, "brand": 0.03, "item": 0.02}
NO_EFFECTS: dict[str, Any] = {
    each.name: (0.0,) * len(each.default) if isinstance(each.default, tuple) else 0.0
    for each in fields(Strengths)
}
OF_ITEMS = {
    "ctr_category": 0.35,
    "ctr_shop": 0.15,
    "ctr_brand": 0.10,
    "ctr_item": 0.10,
    "cvr_category": 0.30,
    "cvr_shop": 0.10,
    "cvr_brand": 0.10,
    "cvr_item": 0.05,
}
BIASES = Strengths(**(NO_EFFECTS | OF_ITEMS))


def build_latent_world(seed: int, contexts: int) -> PlantedWorld:
    """The latent world of a seed: ids, profiles and items as in the additive one, all effects anew."""
    world = build_world(seed, contexts, BIASES)
    rng = np.random.default_rng([seed, LATENT_STREAM])
    user = _user_vectors(rng, world.profile)
    category = _category_vectors(rng, int(world.inside[0]))
    item = _item_vectors(rng, world, category)
    of_tasks = [strength * item @ _rotation(rng) for strength in (CTR_STRENGTH, CVR_STRENGTH)]
    return world._replace(
        user_category=_preferred(rng, user, category),
        user_latent=user / np.sqrt(LATENT_DIM),
        item_latent=np.stack(of_tasks, axis=2),
    )


def _user_vectors(rng: np.random.Generator, profile: Array) -> Array:
    """float64 [users, LATENT_DIM], unit variance: what the profile tells, and each user's own."""
    told = np.zeros((profile.shape[0], LATENT_DIM))
    for column, values in ((2, 2), (3, 7), (5, 3), (7, 4)):  # gender, age, level, geography; 0: unknown
        told += rng.normal(0.0, 0.5, (values + 1, LATENT_DIM))[profile[:, column]]
    own = rng.normal(size=told.shape)
    return np.sqrt(SHARE_OF_PROFILE) * told + np.sqrt(1 - SHARE_OF_PROFILE) * own


def _category_vectors(rng: np.random.Generator, categories: int) -> Array:
    """float64 [categories, LATENT_DIM]: the department's part and the category's own."""
    of_department = rng.normal(size=(DEPARTMENTS, LATENT_DIM))[np.arange(categories) % DEPARTMENTS]
    own = rng.normal(size=(categories, LATENT_DIM))
    return np.sqrt(SHARES["department"]) * of_department + np.sqrt(SHARES["category"]) * own


def _item_vectors(rng: np.random.Generator, world: PlantedWorld, of_category: Array) -> Array:
    """float64 [items, LATENT_DIM], about unit variance; an item without brand has none of that part."""
    category, shop, brand = world.item_ids.T
    _, shops, brands = (int(size) for size in world.inside[:3])
    of_shop = rng.normal(size=(shops, LATENT_DIM))
    of_brand = np.concatenate([rng.normal(size=(brands, LATENT_DIM)), np.zeros((1, LATENT_DIM))])
    vectors = of_category[category] + np.sqrt(SHARES["shop"]) * of_shop[shop]
    vectors += np.sqrt(SHARES["brand"]) * of_brand[brand]
    return vectors + np.sqrt(SHARES["item"]) * rng.normal(size=vectors.shape)


def _rotation(rng: np.random.Generator) -> Array:
    """float64 [LATENT_DIM, LATENT_DIM], drawn evenly from all rotations and reflections."""
    q, r = np.linalg.qr(rng.normal(size=(LATENT_DIM, LATENT_DIM)))
    return q * np.sign(np.diag(r))


def _preferred(rng: np.random.Generator, user: Array, category: Array) -> Array:
    """int64 [users, PREFERRED]: of `CANDIDATES` popular categories each, those that suit a user's vector.

    user [users, K], category [categories, K]. Gumbel noise makes it a draw without replacement by a softmax.
    """
    chosen = []
    for block in np.array_split(user, -(-len(user) // BLOCK)):
        candidates = zipf_ranks(rng, np.full((len(block), CANDIDATES), len(category)), 0.75)
        liking = np.einsum("uk,uck->uc", block, category[candidates]) / np.sqrt(LATENT_DIM)
        noisy = LEANING * liking + rng.gumbel(size=liking.shape)
        best = np.argpartition(-noisy, PREFERRED, axis=1)[:, :PREFERRED]
        chosen.append(np.take_along_axis(candidates, best, axis=1))
    return rng.permuted(np.concatenate(chosen), axis=1)
