"""Compiled draws from the planted world: a context's history, its impressions, their logits and labels.

Every context and every impression has a random stream of its own (splitmix64, Steele et al. 2014,
"Fast splittable pseudorandom number generators"), so a draw depends on the plan's key alone and not on
which process makes it, or with which others.

The kernels call none of another file: numba's cache notices changes in a function's own file only.
"""

import numba
import numpy as np

from jobs.demo_logs.scratch import MAX_FEATURES
from jobs.demo_logs.world import FIELDS


def _place(name: str) -> np.int64:
    return np.int64(FIELDS.index(name))


# Typed, not bare: numba would compile a function anew for every bare constant it is called with.
CATEGORY, SHOP, BRAND, NODE = np.arange(4, dtype=np.int64)  # lists of a history
USER_ID, PROFILE, HISTORY = _place("101"), _place("121"), _place("109_14")
ITEM, ITEM_CATEGORY, ITEM_SHOP, ITEM_NODE = _place("205"), _place("206"), _place("207"), _place("210")
ITEM_BRAND, POSITION = _place("216"), _place("301")
CROSS_CATEGORY, CROSS_SHOP, CROSS_BRAND, CROSS_NODE = (
    _place("508"),
    _place("509"),
    _place("702"),
    _place("853"),
)
NOTHING = np.int64(0)

CLEAN, DIRT_CONVERSION, DIRT_NO_ITEM = 0, 1, 2  # kinds of rows: see Plan.dirt
NUM_PROFILE = 8
CONSTANT = np.int64(0)  # value code of 1.0; see `value_code`
HISTORY_STREAM, IMPRESSION_STREAM = 0, 1
MEAN_LENGTHS = (69.0, 250.0, 153.6, 135.9)
LENGTH_SD = 0.20  # of a list's length around the context's activity, log scale
MEAN_VISITS = 150.0
# Shares of visits that leave their shop, brand and a node in the lists: the more, the more cross fields.
NOTED_SHOP, NOTED_BRAND, NOTED_NODE = 0.17, 0.31, 0.45
MAX_SINGLE = 9  # user id and eight profile fields
MAX_HITS = 9999
VISIT_INTEREST = 0.80  # share of visits to preferred categories; the others follow popularity
SHOWN_VISITED, SHOWN_INTEREST = 0.03, 0.65  # share of impressions; the others follow popularity
EXPONENT_CATEGORY, EXPONENT_ITEM = 0.75, 1.7  # of the popularity laws
MORE_HITS = (0.5, 0.5, 0.5, 0.8)  # chance that a visit counts once more, and again
MAX_SHARE_OF_SIZE = 0.6  # no history holds more of all ids than this

kernel = numba.njit(cache=True, nogil=True, error_model="numpy")

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
S30, S27, S31, S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
TO_UNIT = 1.0 / (1 << 53)


@kernel
def mix(value):
    """splitmix64's finaliser: a bijection of 64-bit numbers."""
    value = (value ^ (value >> S30)) * MIX_1
    value = (value ^ (value >> S27)) * MIX_2
    return value ^ (value >> S31)


@kernel
def stream_key(key, number):
    """Key of the `number`th stream below `key`; different numbers give different keys."""
    return mix(key + GOLDEN * np.uint64(number + 1))


@kernel
def uniform(state):
    """Next number in [0, 1) of the stream in `state` (uint64 [1])."""
    state[0] += GOLDEN
    return float(mix(state[0]) >> S11) * TO_UNIT


@kernel
def below(state, bound):
    """Next whole number in 0..bound-1."""
    return int(uniform(state) * bound)


@kernel
def normal(state):
    """Next standard normal number (Box-Muller)."""
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform(state)))
    return radius * np.cos(2.0 * np.pi * uniform(state))


@kernel
def zipf_rank(state, count, exponent):
    """Rank in 0..count-1 with density about 1 / (rank + 1)^exponent; exponent is not 1."""
    power = 1.0 - exponent
    rank = int((1.0 + uniform(state) * ((count + 1.0) ** power - 1.0)) ** (1.0 / power)) - 1
    return min(rank, count - 1)


@kernel
def interesting_category(world, user, state):
    """One of the user's preferred categories, the first ones most often."""
    return world.user_category[user, int(world.user_category.shape[1] * uniform(state) ** 1.4)]


@kernel
def popular_category(world, state):
    return zipf_rank(state, world.inside[CATEGORY], EXPONENT_CATEGORY)


@kernel
def item_of_category(world, category, state):
    first = world.category_item[category]
    return first + zipf_rank(state, world.category_item[category + 1] - first, EXPONENT_ITEM)


@kernel
def hits_of(history, which, index):
    """How often an id stands in a list of the history; 0 where it does not."""
    place = history.mark[history.mark_start[which] + index]
    return history.hits[which, place - 1] if place else 0


@kernel
def touch(history, which, index, state):
    """Count a visit to an id; a list that has reached its length takes no new ids."""
    at = history.mark_start[which] + index
    place = history.mark[at]
    if place == 0:
        if history.length[which] == history.limit[which]:
            return
        history.length[which] += 1
        place = history.length[which]
        history.mark[at] = place
        history.ids[which, place - 1] = index
        history.hits[which, place - 1] = 0
    hits = history.hits[which, place - 1] + 1
    while uniform(state) < MORE_HITS[which]:
        hits += 1
    history.hits[which, place - 1] = min(hits, MAX_HITS)


@kernel
def clear(history):
    """Forget the last context."""
    for which in range(4):
        for place in range(history.length[which]):
            history.mark[history.mark_start[which] + history.ids[which, place]] = 0
        history.length[which] = 0
    history.num_visited[0] = 0


@kernel
def draw_limits(world, history, activity, has_user_id, state):
    """Lengths of the four lists, together at most a common record's features."""
    total = 0
    for which in range(4):
        spread = np.exp(LENGTH_SD * normal(state) - LENGTH_SD * LENGTH_SD / 2.0)
        length = int(MEAN_LENGTHS[which] * activity * spread + uniform(state))
        history.limit[which] = min(length, int(MAX_SHARE_OF_SIZE * world.sizes[which]))
        total += history.limit[which]
    if total > MAX_FEATURES - MAX_SINGLE:
        for which in range(4):
            history.limit[which] = int(history.limit[which] * (MAX_FEATURES - MAX_SINGLE) / total)
    if total == 0 and not has_user_id:
        history.limit[CATEGORY] = 1  # a record holds at least one feature


@kernel
def visit_items(world, history, user, visits, state):
    """Visits to items, mostly in preferred categories, leave their mark in all four lists."""
    for _ in range(visits):
        if uniform(state) < VISIT_INTEREST:
            category = interesting_category(world, user, state)
        else:
            category = popular_category(world, state)
        item = item_of_category(world, category, state)
        history.visited[history.num_visited[0]] = item
        history.num_visited[0] += 1
        touch(history, CATEGORY, category, state)
        if uniform(state) < NOTED_SHOP:
            touch(history, SHOP, world.item_ids[item, SHOP], state)
        if uniform(state) < NOTED_BRAND and world.item_ids[item, BRAND] >= 0:
            touch(history, BRAND, world.item_ids[item, BRAND], state)
        first = world.item_node[item]
        end = world.item_node[item + 1]
        if uniform(state) < NOTED_NODE:
            touch(history, NODE, world.node[first + below(state, end - first)], state)


@kernel
def draw_history(world, history, contexts, context, key):
    """Fill `history` with the lists of a context; what visits leave open comes from beyond the items."""
    clear(history)
    state = np.empty(1, dtype=np.uint64)
    state[0] = stream_key(key, HISTORY_STREAM)
    activity = contexts.list_scale * contexts.activity[context]
    draw_limits(world, history, activity, contexts.has_user_id[context], state)
    visits = min(int(MEAN_VISITS * activity), MAX_FEATURES)
    visit_items(world, history, contexts.user[context], visits, state)
    for which in range(4):
        inside = world.inside[which]
        outside = world.sizes[which] - world.inside[which]
        for _ in range(20 * history.limit[which]):
            if history.length[which] == history.limit[which]:
                break
            touch(history, which, inside + below(state, outside), state)


@kernel
def draw_item(world, history, user, state):
    """The item of an impression: one visited, one that fits the interests, or a popular one."""
    kind = uniform(state)
    if kind < SHOWN_VISITED and history.num_visited[0] > 0:
        return history.visited[below(state, history.num_visited[0])]
    if kind < SHOWN_VISITED + SHOWN_INTEREST:
        return item_of_category(world, interesting_category(world, user, state), state)
    return item_of_category(world, popular_category(world, state), state)


@kernel
def draw_position(world, state):
    draw = uniform(state)
    if draw < world.position_share[0]:
        return 0
    return 1 if draw < world.position_share[0] + world.position_share[1] else 2


@kernel
def logits(world, user, item, position, cross):
    """(CTR, CVR) logits without intercepts; `cross` float64 [4]: the values of 508, 509, 702, 853 (sum)."""
    department = world.item_ids[item, CATEGORY] % world.appeal.shape[1]
    ctr = world.item_effect[item, 0] + world.user_effect[user, 0] + world.appeal[user, department, 0]
    cvr = world.item_effect[item, 1] + world.user_effect[user, 1] + world.appeal[user, department, 1]
    cvr += world.item_effect[item, 2] * world.user_effect[user, 2]
    ctr += world.position_effect[position, 0]
    cvr += world.position_effect[position, 1]
    for which in range(4):
        ctr += world.cross_effect[which, 0] * cross[which]
        cvr += world.cross_effect[which, 1] * cross[which]
    for k in range(world.user_latent.shape[1]):
        ctr += world.user_latent[user, k] * world.item_latent[item, k, 0]
        cvr += world.user_latent[user, k] * world.item_latent[item, k, 1]
    return ctr, cvr


@kernel
def value_code(which, hits):
    """Code of a list entry's value: 1 + n stands for ln(1+n), and 10,001 + n for the nodes' ln(1+n/12)."""
    return 1 + hits + (MAX_HITS + 1 if which == NODE else 0)


@kernel
def value_of(which, hits):
    return np.log1p(hits / 12.0) if which == NODE else np.log1p(float(hits))


@kernel
def add(world, lines, at, field, index, value):
    """Append a feature; returns the next place."""
    lines.field[at] = field
    lines.id[at] = world.id_start[field] + world.id_stride * index
    lines.value[at] = value
    return at + 1


@kernel
def add_crossed(world, history, lines, at, cross, field, cross_field, which, index):
    """Append an item's feature, and its cross feature where the history holds the same id."""
    at = add(world, lines, at, field, index, CONSTANT)
    hits = hits_of(history, which, index)
    if hits > 0:
        at = add(world, lines, at, cross_field, index, value_code(which, hits))
        cross[which] += value_of(which, hits)
    return at


@kernel
def shuffle(lines, first, end, state):
    """Bring the features of a line into random order (Fisher-Yates)."""
    for left in range(end - first, 1, -1):
        last = first + left - 1
        pick = first + below(state, left)
        lines.field[last], lines.field[pick] = lines.field[pick], lines.field[last]
        lines.id[last], lines.id[pick] = lines.id[pick], lines.id[last]
        lines.value[last], lines.value[pick] = lines.value[pick], lines.value[last]


@kernel
def collect_common(world, history, lines, at, user, has_user_id):
    """Append a common record's features: user id, profile, the four lists."""
    if has_user_id:
        at = add(world, lines, at, USER_ID, user, CONSTANT)
    for column in range(NUM_PROFILE):
        value = world.profile[user, column]
        if value > 0:
            at = add(world, lines, at, PROFILE + column, value - 1, CONSTANT)
    for which in range(4):
        for place in range(history.length[which]):
            code = value_code(which, history.hits[which, place])
            at = add(world, lines, at, HISTORY + which, history.ids[which, place], code)
    return at


@kernel
def collect_impression(world, history, lines, at, cross, item, position, has_item):
    """Append a skeleton row's features; `cross` becomes the values of the four cross fields."""
    cross[:] = 0.0
    at = add(world, lines, at, POSITION, position, CONSTANT)
    category = world.item_ids[item, CATEGORY]
    shop = world.item_ids[item, SHOP]
    brand = world.item_ids[item, BRAND]
    if has_item:
        at = add(world, lines, at, ITEM, item, CONSTANT)
        at = add_crossed(world, history, lines, at, cross, ITEM_CATEGORY, CROSS_CATEGORY, CATEGORY, category)
        at = add_crossed(world, history, lines, at, cross, ITEM_SHOP, CROSS_SHOP, SHOP, shop)
    if brand >= 0:
        at = add_crossed(world, history, lines, at, cross, ITEM_BRAND, CROSS_BRAND, BRAND, brand)
    for place in range(world.item_node[item], world.item_node[item + 1]):
        at = add_crossed(world, history, lines, at, cross, ITEM_NODE, CROSS_NODE, NODE, world.node[place])
    return at


@kernel
def draw_labels(labels, intercepts, kind, state):
    """Click and conversion from the logits in `labels` [4]; dirt of that kind converts without a click."""
    click = uniform(state) < 1.0 / (1.0 + np.exp(-labels[0] - intercepts[0]))
    conversion = uniform(state) < 1.0 / (1.0 + np.exp(-labels[1] - intercepts[1])) and click
    if kind == DIRT_CONVERSION:
        click = False
        conversion = True
    labels[2] = click
    labels[3] = conversion


@kernel
def draw_records(world, history, contexts, chosen, lines):
    """Common records of the contexts `chosen` (int64 [n]) into `lines`."""
    state = np.empty(1, dtype=np.uint64)
    for line in range(chosen.shape[0]):
        context = chosen[line]
        key = stream_key(contexts.key, context)
        draw_history(world, history, contexts, context, key)
        first = lines.start[line]
        user = contexts.user[context]
        end = collect_common(world, history, lines, first, user, contexts.has_user_id[context])
        state[0] = key
        shuffle(lines, first, end, state)
        lines.context[line] = key
        lines.start[line + 1] = end


@kernel
def draw_rows(world, history, contexts, segments, dirt, intercepts, lines):
    """Impressions of `segments` (int64 [S, 3]: context, first impression, count) into `lines`."""
    state = np.empty(1, dtype=np.uint64)
    cross = np.zeros(4)
    line = NOTHING
    for segment in range(segments.shape[0]):
        context = segments[segment, 0]
        offset = segments[segment, 1]
        key = stream_key(contexts.key, context)
        user = contexts.user[context]
        draw_history(world, history, contexts, context, key)
        for impression in range(offset, offset + segments[segment, 2]):
            state[0] = stream_key(stream_key(key, IMPRESSION_STREAM), impression)
            item = draw_item(world, history, user, state)
            position = draw_position(world, state)
            first = lines.start[line]
            has_item = dirt[line] != DIRT_NO_ITEM
            end = collect_impression(world, history, lines, first, cross, item, position, has_item)
            shuffle(lines, first, end, state)
            lines.context[line] = key
            lines.start[line + 1] = end
            lines.labels[line, 0], lines.labels[line, 1] = logits(world, user, item, position, cross)
            draw_labels(lines.labels[line], intercepts, dirt[line], state)
            line += 1
