"""What a split of the demo logs holds before anything is drawn in detail: who, how many, where, which dirt.

A plan is small (a few numbers per context), so that any chunk of a file can be drawn by any process:
the kernels seed every context and every impression from the plan's key.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from jobs.demo_logs.draw import CLEAN, DIRT_CONVERSION, DIRT_NO_ITEM
from jobs.demo_logs.laws import Array
from jobs.demo_logs.scratch import Contexts
from jobs.demo_logs.world import PlantedWorld

MEAN_IMPRESSIONS = 57.9
SHARE_OF_SINGLE = 0.012  # contexts with exactly one impression
MAX_IMPRESSIONS = 2500
SHARE_WITHOUT_USER = 0.0022  # of impressions
SHARE_COLD = 0.03  # contexts with next to no history
USER_ACTIVITY_SD, CONTEXT_ACTIVITY_SD = 0.45, 0.35  # length of the history, log scale
SHARE_OF_TORN = 0.01  # contexts whose impressions stand in two places of the skeleton
# Rows of this kind per row of Ali-CCP's training half.
CONVERSION_WITHOUT_CLICK = 230 / 42_300_135
WITHOUT_ITEM = 79 / 42_300_135
PLAN_STREAM = 2


@dataclass(frozen=True)
class Plan:
    """One split. Contexts are numbered 0..N-1; a segment is a run of one context's impressions."""

    key: int  # the split's 64-bit key
    user: Array  # int64 [N]
    activity: Array  # float64 [N]: relative length of the history
    has_user_id: Array  # bool [N]
    impressions: Array  # int64 [N]
    common_order: Array  # int64 [N]: the contexts in the order of the common file
    segment_context: Array  # int64 [S], in the order of the skeleton
    segment_first: Array  # int64 [S]: the context's impression with which the segment begins
    segment_count: Array  # int64 [S]
    segment_row: Array  # int64 [S + 1]: rows before each segment
    dirt_row: Array  # int64, ascending
    dirt_kind: Array  # int8, DIRT_CONVERSION or DIRT_NO_ITEM

    @property
    def contexts(self) -> int:
        return self.user.shape[0]

    @property
    def rows(self) -> int:
        return int(self.segment_row[-1])

    def contexts_for(self, list_scale: float) -> Contexts:
        """The plan's contexts as the kernels take them."""
        return Contexts(np.uint64(self.key), list_scale, self.user, self.activity, self.has_user_id)

    def segments(self, first: int, end: int) -> Array:
        """int64 [end - first, 3]: context, first impression and count of the segments first..end-1."""
        columns = (self.segment_context, self.segment_first, self.segment_count)
        return np.stack([column[first:end] for column in columns], axis=1)

    def dirt(self, first_row: int, end_row: int) -> Array:
        """int8 [end_row - first_row]: CLEAN or the kind of dirt of each row."""
        kinds = np.full(end_row - first_row, CLEAN, dtype=np.int8)
        low, high = np.searchsorted(self.dirt_row, (first_row, end_row))
        kinds[self.dirt_row[low:high] - first_row] = self.dirt_kind[low:high]
        return kinds


def draw_impressions(rng: np.random.Generator, contexts: int) -> Array:
    """Impressions per context: a stratified log-normal, so that mean and share of ones hold at any size.

    Its two parameters follow from the mean and from P(x < 1.5) = `SHARE_OF_SINGLE`.
    """
    below = NormalDist().inv_cdf(SHARE_OF_SINGLE)
    distance = np.log(MEAN_IMPRESSIONS) - np.log(1.5)
    sigma = below + np.sqrt(below**2 + 2.0 * distance)
    mu = np.log(MEAN_IMPRESSIONS) - sigma**2 / 2.0
    shares = (np.arange(contexts) + 0.5) / contexts
    normal = np.array([NormalDist().inv_cdf(share) for share in shares])
    count = np.clip(np.round(np.exp(mu + sigma * normal)), 1, MAX_IMPRESSIONS)
    missing = MEAN_IMPRESSIONS * contexts - count.sum()  # the tail that the strata and the limit cut off
    count[count > 1] *= 1.0 + missing / max(1.0, count[count > 1].sum())
    return rng.permutation(np.maximum(1, np.round(count)).astype(np.int64))


def draw_without_user(rng: np.random.Generator, impressions: Array) -> Array:
    """bool [N]: contexts without user id, about `SHARE_WITHOUT_USER` of the impressions and at least one."""
    budget = SHARE_WITHOUT_USER * impressions.sum()
    chosen = np.zeros(impressions.shape[0], dtype=bool)
    for context in rng.permutation(impressions.shape[0]):
        if impressions[context] <= budget:
            chosen[context] = True
            budget -= impressions[context]
    if not chosen.any():
        chosen[np.argmin(impressions)] = True
    return chosen


def draw_segments(rng: np.random.Generator, impressions: Array) -> tuple[Array, Array, Array]:
    """(context, first impression, count) of the skeleton's segments: one per context, a few torn in two."""
    contexts = impressions.shape[0]
    torn = np.flatnonzero((rng.random(contexts) < SHARE_OF_TORN) & (impressions > 1))
    head = impressions.copy()
    head[torn] = 1 + (rng.random(torn.shape[0]) * (impressions[torn] - 1)).astype(np.int64)
    context = np.concatenate((np.arange(contexts), torn))
    first = np.concatenate((np.zeros(contexts, dtype=np.int64), head[torn]))
    count = np.concatenate((head, impressions[torn] - head[torn]))
    order = np.argsort(
        np.concatenate((np.arange(contexts), rng.random(torn.shape[0]) * contexts)), kind="stable"
    )
    return context[order], first[order], count[order]


def draw_dirt(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """(rows ascending, kinds): the real shares, but at least two and one where there are enough rows."""
    conversions = min(max(2, round(CONVERSION_WITHOUT_CLICK * rows)), rows // 4)
    without_item = min(max(1, round(WITHOUT_ITEM * rows)), rows // 4)
    row = rng.choice(rows, conversions + without_item, replace=False)
    kind = np.repeat(np.array([DIRT_CONVERSION, DIRT_NO_ITEM], dtype=np.int8), (conversions, without_item))
    order = np.argsort(row)
    return row[order].astype(np.int64), kind[order]


def draw_activity(rng: np.random.Generator, habit: Array) -> Array:
    """float64 [N], mean about 1: the user's habit, the fortnight's chance, and a few who hardly come."""
    contexts = habit.shape[0]
    chance = np.exp(rng.normal(0.0, CONTEXT_ACTIVITY_SD, contexts) - CONTEXT_ACTIVITY_SD**2 / 2)
    cold = rng.random(contexts) < SHARE_COLD
    return np.where(cold, 0.02 * rng.random(contexts), habit * chance / (1 - SHARE_COLD))


def draw_plan(seed: int, split: int, contexts: int, world: PlantedWorld) -> Plan:
    """The plan of a split; the same seed and split give the same plan."""
    rng = np.random.default_rng([seed, PLAN_STREAM, split])
    habits = np.random.default_rng([seed, PLAN_STREAM])  # the users' own, the same in both halves
    weight = habits.gamma(2.0, size=world.num_users)
    activity = np.exp(habits.normal(0.0, USER_ACTIVITY_SD, world.num_users) - USER_ACTIVITY_SD**2 / 2)
    user = rng.choice(world.num_users, contexts, p=weight / weight.sum())
    impressions = draw_impressions(rng, contexts)
    segment_context, segment_first, segment_count = draw_segments(rng, impressions)
    dirt_row, dirt_kind = draw_dirt(rng, int(impressions.sum()))
    return Plan(
        key=int(rng.integers(0, 2**63)),
        user=user,
        activity=draw_activity(rng, activity[user]),
        has_user_id=~draw_without_user(rng, impressions),
        impressions=impressions,
        common_order=rng.permutation(contexts).astype(np.int64),
        segment_context=segment_context,
        segment_first=segment_first,
        segment_count=segment_count,
        segment_row=np.concatenate(([0], np.cumsum(segment_count))),
        dirt_row=dirt_row,
        dirt_kind=dirt_kind,
    )
