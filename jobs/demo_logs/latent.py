"""A planted world of latent vectors, as matrix factorisation assumes it: Koren, Bell and Volinsky, 2009.

Users have a vector u, items a vector v, and apart from the items' own biases the logits are bilinear:

    CTR: u . A v + b        CVR: u . B v + c        A, B: rotations, drawn apart from each other

Nothing in the logs is u or v. A user's vector shows in the history, whose departments are those that the user
leans to, and in the profile; an item's in its department, category, shop and brand. So a model gets nowhere
that adds up what fields say one by one: it has to find the products.
"""

import numpy as np

from jobs.demo_logs.world import (
    DEPARTMENTS,
    LATENT_DIM,
    PREFERRED,
    Array,
    PlantedWorld,
    Strengths,
    build_world,
    zipf_ranks,
)

LATENT_STREAM = 3  # separates these random numbers from the world's and the plans'
CTR_STRENGTH, CVR_STRENGTH = 1.0, 1.0  # deviation of the bilinear part of each logit
LEANING = 2.5  # how strongly users keep to the departments of their liking
SHARE_OF_PROFILE = 0.3  # of the variance of u, told by gender, age, level and geography
# Shares of the variance of v that an item has from its department, category, shop, brand, and on its own.
ITEM_SHARES = (0.50, 0.25, 0.10, 0.10, 0.05)
BIASES = Strengths(
    ctr_category=0.35,
    ctr_shop=0.15,
    ctr_brand=0.10,
    ctr_item=0.10,
    ctr_user=0.0,
    ctr_profile=0.0,
    ctr_appeal=0.0,
    ctr_latent=0.0,
    ctr_position=(0.0, 0.0, 0.0),
    ctr_cross=(0.0, 0.0, 0.0, 0.0),
    cvr_category=0.30,
    cvr_click_bait=0.0,
    cvr_shop=0.10,
    cvr_brand=0.10,
    cvr_item=0.05,
    cvr_user=0.0,
    cvr_profile=0.0,
    cvr_appeal=0.0,
    cvr_price=0.0,
    cvr_position=(0.0, 0.0, 0.0),
    cvr_cross=(0.0, 0.0, 0.0, 0.0),
)


def build_latent_world(seed: int, contexts: int) -> PlantedWorld:
    """The latent world of a seed: ids, profiles and items as in the additive one, all effects anew."""
    world = build_world(seed, contexts, BIASES)
    rng = np.random.default_rng([seed, LATENT_STREAM])
    department = rng.normal(size=(DEPARTMENTS, LATENT_DIM))
    user = _user_vectors(rng, world.profile)
    item = _item_vectors(rng, world, department)
    of_tasks = [strength * item @ _rotation(rng) for strength in (CTR_STRENGTH, CVR_STRENGTH)]
    return world._replace(
        user_category=_preferred(rng, user @ department.T, int(world.inside[0])),
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


def _item_vectors(rng: np.random.Generator, world: PlantedWorld, department: Array) -> Array:
    """float64 [items, LATENT_DIM], about unit variance; an item without brand has none of that part."""
    category, shop, brand = world.item_ids.T
    _, shops, brands = world.inside[:3]
    of_category = rng.normal(size=(int(world.inside[0]), LATENT_DIM))
    of_shop = rng.normal(size=(int(shops), LATENT_DIM))
    of_brand = np.concatenate([rng.normal(size=(int(brands), LATENT_DIM)), np.zeros((1, LATENT_DIM))])
    own = rng.normal(size=(world.num_items, LATENT_DIM))
    parts = (department[category % DEPARTMENTS], of_category[category], of_shop[shop], of_brand[brand], own)
    return sum((np.sqrt(share) * part for share, part in zip(ITEM_SHARES, parts, strict=True)), 0 * own)


def _rotation(rng: np.random.Generator) -> Array:
    """float64 [LATENT_DIM, LATENT_DIM], drawn evenly from all rotations and reflections."""
    q, r = np.linalg.qr(rng.normal(size=(LATENT_DIM, LATENT_DIM)))
    return q * np.sign(np.diag(r))


def _preferred(rng: np.random.Generator, liking: Array, categories: int) -> Array:
    """int64 [users, PREFERRED]: two categories of each of some departments, drawn by liking [users, D]."""
    taste = LEANING * liking / liking.std()
    noise = rng.gumbel(size=(liking.shape[0], PREFERRED // 2, DEPARTMENTS))
    department = np.repeat(np.argmax(taste[:, None, :] + noise, axis=2), 2, axis=1)
    rank = zipf_ranks(rng, np.full(department.shape, categories // DEPARTMENTS), 0.8)
    return rng.permuted(rank * DEPARTMENTS + department, axis=1)
