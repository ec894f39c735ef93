"""The planted shop: customers, products and the effects that make people click and buy.

Customers and categories have latent tastes; what a customer likes is looked at, shown and clicked more.
Products belong to categories (number modulo `CATEGORIES`); a smaller number is more popular.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SEGMENTS = ("student", "family", "single", "couple", "senior", "business")
DEVICES = ("phone", "tablet", "desktop")
DEVICE_SHARE = (0.55, 0.1, 0.35)
CATEGORIES = 48
BRANDS = 240
TAGS = 120
MOST_TAGS = 4  # of a product
TAGS_OF_CATEGORY = 15  # its products' tags lie in a window of so many
LATENT_DIM = 4
SHARE_WITH_SEGMENT = 0.85
SHARE_WITH_BRAND = 0.8
WORLD_STREAM = 1  # separates the world's random numbers from the sessions'


class Effects(NamedTuple):
    """Standard deviations and slopes of what one of the two logits is made of."""

    category: float
    brand: float
    tag: float
    product: float  # mostly out of reach: many products are rare
    segment: float
    device: tuple[float, float, float]
    taste: float  # how well the customer's taste fits the category
    affinity: float  # per unit of the weight of category_affinity
    position: float  # per place
    price: float  # per standard deviation of the logarithm of the price, in its category
    recent: float  # of a customer who has ordered today; in RECENT days it falls to a third


CTR = Effects(0.65, 0.3, 0.2, 0.15, 0.35, (0.2, 0.0, -0.25), 0.55, 0.35, -0.08, -0.25, 0.2)
CVR = Effects(0.55, 0.3, 0.2, 0.1, 0.55, (-0.45, 0.0, 0.55), 0.3, 0.35, -0.03, -0.5, 0.8)
RECENT = 20.0


class Logits(NamedTuple):
    """The effects of one logit, drawn. product: [P], of its category, brand and tags too."""

    product: Array
    segment: Array  # float64 [SEGMENTS]
    slopes: Effects


class Shop(NamedTuple):
    """Read-only arrays."""

    segment: Array  # int64 [C]: of each customer
    has_segment: Array  # bool [C]: whether the shop knows it
    frequency: Array  # float64 [C]: how likely a session is this customer's, upwards to 1
    taste: Array  # float64 [C, LATENT_DIM]
    category_taste: Array  # float64 [CATEGORIES, LATENT_DIM]
    popularity: Array  # float64 [CATEGORIES]: share of the pages that taste does not decide
    brand: Array  # int64 [P]: -1 none
    tags: Array  # int64 [P, MOST_TAGS]: -1 none
    dearness: Array  # float64 [P]: about standard normal, how the price compares in its category
    category_price: Array  # float64 [CATEGORIES]: mean of the logarithm of the price
    ctr: Logits
    cvr: Logits

    @property
    def num_products(self) -> int:
        return len(self.brand)

    def price(self, products: Array) -> Array:
        """float64 [N]: of these products."""
        prices: Array = np.exp(self.category_price[products % CATEGORIES] + 0.7 * self.dearness[products])
        return prices

    def fit(self, customers: Array) -> Array:
        """float64 [N, CATEGORIES], about standard normal: how well each category fits their taste."""
        fits: Array = self.taste[customers] @ self.category_taste.T / np.sqrt(LATENT_DIM)
        return fits


def build_shop(seed: int, contexts: int) -> Shop:
    """The shop of a seed; it grows with the sessions of the training half."""
    rng = np.random.default_rng([seed, WORLD_STREAM])
    customers = max(4, round(0.56 * contexts))
    products = CATEGORIES * max(8, round(60 * (contexts / 8000) ** 0.6))
    segment = rng.integers(len(SEGMENTS), size=customers)
    segment_taste = rng.normal(size=(len(SEGMENTS), LATENT_DIM))
    brand, tags = _draw_products(rng, products)
    weight = rng.gamma(2.0, size=customers)
    popularity = rng.permutation((1.0 + np.arange(CATEGORIES)) ** -0.7)
    ctr, cvr = (_draw_logits(rng, effects, brand, tags) for effects in (CTR, CVR))
    return Shop(
        segment=segment,
        has_segment=rng.random(customers) < SHARE_WITH_SEGMENT,
        frequency=np.cumsum(weight / weight.sum()),
        taste=0.8 * segment_taste[segment] + 0.6 * rng.normal(size=(customers, LATENT_DIM)),
        category_taste=rng.normal(size=(CATEGORIES, LATENT_DIM)),
        popularity=popularity / popularity.sum(),
        brand=brand,
        tags=tags,
        ctr=ctr,
        cvr=cvr,
        dearness=rng.normal(size=products),
        category_price=rng.normal(3.0, 0.8, CATEGORIES),
    )


def _draw_products(rng: np.random.Generator, products: int) -> tuple[Array, Array]:
    """Brands and tags of the products, -1 where there is none."""
    brand = np.minimum((BRANDS * rng.random(products) ** 2).astype(np.int64), BRANDS - 1)
    brand[rng.random(products) >= SHARE_WITH_BRAND] = -1
    window = (np.arange(products) % CATEGORIES) * TAGS // CATEGORIES
    offset = np.argsort(rng.random((products, TAGS_OF_CATEGORY)), axis=1)[:, :MOST_TAGS]
    tags = (window[:, None] + offset) % TAGS
    count = rng.integers(0, MOST_TAGS + 1, size=products)
    return brand, np.where(np.arange(MOST_TAGS) < count[:, None], tags, -1)


def _draw_logits(rng: np.random.Generator, effects: Effects, brand: Array, tags: Array) -> Logits:
    def of(ids: Array, deviation: float, kinds: int) -> Array:
        """The effect of each id, 0 where there is none (-1)."""
        values: Array = np.append(rng.normal(0.0, deviation, kinds), 0.0)[ids]
        return values

    category = of(np.arange(len(brand)) % CATEGORIES, effects.category, CATEGORIES)
    product = category + of(brand, effects.brand, BRANDS) + of(tags, effects.tag, TAGS).sum(axis=1)
    return Logits(
        product=product + rng.normal(0.0, effects.product, len(brand)),
        segment=rng.normal(0.0, effects.segment, len(SEGMENTS)),
        slopes=effects,
    )
