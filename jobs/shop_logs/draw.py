"""Sessions of the planted shop and their impressions: whole chunks in numpy."""

from typing import NamedTuple

import numpy as np

from jobs.demo_logs.chunks import sigmoid, solve_intercept
from jobs.shop_logs.world import CATEGORIES, DEVICE_SHARE, DEVICES, RECENT, Array, Logits, Shop

CHUNK = 2000  # sessions that are drawn at once, and of a file
MEAN_IMPRESSIONS = 58  # of a session
MOST_IMPRESSIONS = 400
PAGE = 20  # impressions of a page: positions count from 1 again
VISITS = 12.0  # pages of 14 days, on average
SHARE_WITHOUT_CUSTOMER = 0.03  # sessions without log-in
SHARE_WITHOUT_ORDER = 0.3  # sessions of customers who have not ordered yet
MEAN_DAYS = 40.0  # since the last order
SHARE_BY_TASTE = 0.5  # of the impressions; popularity decides on the others
POPULARITY = 0.75  # of products in their category: the density is about 1 / (rank + 1)^this
DIRTY_SHARE = 0.0001  # of the impressions, for each of the two kinds of dirt
SESSIONS_STREAM = 2
ACTIONS_STREAM = 3
OF_BUYERS = {"carted": 0.75, "wished": 0.3}  # share of the clicks with a conversion that had it before
OF_OTHERS = {"carted": 0.5, "wished": -0.4}  # of other clicks: what is added to the CVR logit


class Sessions(NamedTuple):
    """N sessions."""

    customer: Array  # int64 [N]
    known: Array  # bool [N]: whether they have logged in
    device: Array  # int64 [N]
    visits: Array  # int64 [N, CATEGORIES]: pages of each category in 14 days
    days: Array  # float64 [N]: since the customer's last order; NaN where there was none
    impressions: Array  # int64 [N]


class Shown(NamedTuple):
    """M impressions without their labels, those of a session one after the other."""

    session: Array  # int64 [M]: place of the session in its chunk
    place: Array  # int64 [M]: in the session, from 0
    product: Array  # int64 [M]
    visits: Array  # int64 [M]: of the product's category in 14 days
    fit: Array  # float64 [M]: of the category and the customer's taste


class Labels(NamedTuple):
    """Labels of M impressions, and the probabilities that they were drawn with."""

    p_ctr: Array  # float64 [M]
    p_cvr: Array  # float64 [M]
    clicked: Array  # bool [M]
    bought: Array  # bool [M]
    contradicts: Array  # bool [M]: dirt, bought without a click
    lost: Array  # bool [M]: dirt, nobody knows of which session
    actions: dict[str, Array]  # bool [M] each: carted, wished

    @property
    def good(self) -> Array:
        """bool [M]: which are no dirt."""
        are_good: Array = ~(self.contradicts | self.lost)
        return are_good


class Chunk(NamedTuple):
    sessions: Sessions
    shown: Shown
    labels: Labels


class Drawing(NamedTuple):
    """What chunks are drawn from."""

    shop: Shop
    seed: int
    list_scale: float  # scales the number of visits
    intercepts: Array  # float64 [2]: of the CTR and the CVR logit

    def chunk(self, split: int, number: int, sessions: int) -> Chunk:
        """A chunk of so many sessions, which does not depend on what was drawn before."""
        rng = np.random.default_rng([self.seed, SESSIONS_STREAM, split, number])
        drawn = _draw_sessions(rng, self.shop, sessions, self.list_scale)
        shown = _draw_shown(rng, self.shop, drawn)
        effects = (self.shop.ctr, self.shop.cvr)
        logits = [_logit(self.shop, effect, drawn, shown) for effect in effects] + self.intercepts[:, None]
        labels = _draw_labels(rng, *logits)
        apart = np.random.default_rng([self.seed, ACTIONS_STREAM, split, number])
        return Chunk(drawn, shown, labels._replace(actions=_draw_actions(apart, labels, logits[1])))


def _draw_sessions(rng: np.random.Generator, shop: Shop, num: int, list_scale: float) -> Sessions:
    customer = np.minimum(np.searchsorted(shop.frequency, rng.random(num)), len(shop.segment) - 1)
    rate = VISITS * list_scale * rng.gamma(1.5, 1 / 1.5, num)
    visits = rng.poisson(rate[:, None] * _interest(shop, customer))
    spread = rng.lognormal(-0.5 * 0.7**2, 0.7, num)
    count = np.clip(np.round(MEAN_IMPRESSIONS * spread), 1, MOST_IMPRESSIONS)
    days = np.round(rng.exponential(MEAN_DAYS, num), 2)
    return Sessions(
        customer=customer,
        known=rng.random(num) >= SHARE_WITHOUT_CUSTOMER,
        device=rng.choice(len(DEVICES), num, p=DEVICE_SHARE),
        visits=visits,
        days=np.where(rng.random(num) < SHARE_WITHOUT_ORDER, np.nan, days),
        impressions=count.astype(np.int64),
    )


def _interest(shop: Shop, customer: Array) -> Array:
    """float64 [N, CATEGORIES]: share of each category in what they look at."""
    weight = shop.popularity * np.exp(1.2 * shop.fit(customer))
    share: Array = weight / weight.sum(axis=1, keepdims=True)
    return share


def _draw_shown(rng: np.random.Generator, shop: Shop, sessions: Sessions) -> Shown:
    count = sessions.impressions
    session = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(session)) - np.repeat(np.cumsum(count) - count, count)
    category = _draw_categories(rng, shop, sessions, session)
    size = shop.num_products // CATEGORIES  # products of a category
    power = 1.0 - POPULARITY
    rank = (1.0 + rng.random(len(session)) * ((size + 1.0) ** power - 1.0)) ** (1.0 / power) - 1.0
    return Shown(
        session=session,
        place=place,
        product=np.minimum(rank.astype(np.int64), size - 1) * CATEGORIES + category,
        visits=sessions.visits[session, category],
        fit=shop.fit(sessions.customer)[session, category],
    )


def _draw_categories(rng: np.random.Generator, shop: Shop, sessions: Sessions, session: Array) -> Array:
    """int64 [M]: what is shown, half of it by taste and half by popularity."""
    share = SHARE_BY_TASTE * _interest(shop, sessions.customer) + (1.0 - SHARE_BY_TASTE) * shop.popularity
    below = np.cumsum(share, axis=1)[session]
    drawn = (below < rng.random(len(session))[:, None]).sum(axis=1)
    return np.minimum(drawn, CATEGORIES - 1)


def _logit(shop: Shop, effects: Logits, sessions: Sessions, shown: Shown) -> Array:
    """float64 [M]: without its intercept."""
    slopes = effects.slopes
    of_session = effects.segment[shop.segment[sessions.customer]] + np.array(slopes.device)[sessions.device]
    of_session = of_session + slopes.recent * np.exp(-np.nan_to_num(sessions.days, nan=np.inf) / RECENT)
    of_product = effects.product[shown.product] + slopes.taste * shown.fit
    of_product = of_product + slopes.price * shop.dearness[shown.product]
    logit: Array = of_session[shown.session] + of_product + slopes.affinity * np.log1p(shown.visits)
    return logit + slopes.position * (shown.place % PAGE)


def _draw_labels(rng: np.random.Generator, ctr_logit: Array, cvr_logit: Array) -> Labels:
    p_ctr, p_cvr = sigmoid(ctr_logit), sigmoid(cvr_logit)
    num = len(p_ctr)
    clicked = rng.random(num) < p_ctr
    bought = clicked & (rng.random(num) < p_cvr)
    dirty = min(max(1, round(DIRTY_SHARE * num)), num // 4)
    contradicts, lost = np.zeros((2, num), dtype=bool)
    rows = rng.choice(num, 2 * dirty, replace=False)
    contradicts[rows[:dirty]] = True
    lost[rows[dirty:]] = True
    return Labels(p_ctr, p_cvr, clicked, bought, contradicts, lost, {})


def _draw_actions(rng: np.random.Generator, labels: Labels, cvr_logit: Array) -> dict[str, Array]:
    """Of clicks, and likelier where conversions are: they tell of pCVR more often than these."""
    found = {}
    for name, of_buyers in OF_BUYERS.items():
        p = np.where(labels.bought, of_buyers, sigmoid(cvr_logit + OF_OTHERS[name]))
        found[name] = labels.clicked & ~labels.contradicts & (rng.random(len(p)) < p)
    return found


def calibrated(drawing: Drawing, contexts: int, ctr: float, cvr: float) -> Drawing:
    """The same with intercepts that give the wanted mean CTR, and the wanted mean CVR of clicks."""
    labels = drawing.chunk(0, 0, min(CHUNK, contexts)).labels
    logits = [np.log(p / (1.0 - p)) - b for p, b in zip(labels[:2], drawing.intercepts, strict=True)]
    of_ctr = solve_intercept(logits[0], np.ones(len(logits[0])), ctr)
    # The CVR of clicks is the mean of p_cvr weighted by the chance of the click.
    of_cvr = solve_intercept(logits[1], sigmoid(logits[0] + of_ctr), cvr)
    return drawing._replace(intercepts=np.array([of_ctr, of_cvr]))
