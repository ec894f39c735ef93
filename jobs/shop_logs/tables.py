"""What was drawn as Arrow tables with the columns of configs/schemas/shop.yaml, and the truth as text."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.shop_logs.draw import PAGE, Chunk, Sessions, Shown
from jobs.shop_logs.world import CATEGORIES, DEVICES, SEGMENTS, Array, Shop


def numbered(prefix: str, numbers: Array, digits: int, known: Array | None = None) -> pa.Array:
    """Ids as text: the prefix, then the number with leading zeros; null where known is False."""
    missing = None if known is None else ~known
    text = pc.utf8_lpad(pa.array(numbers, mask=missing).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, text, "")


def named(names: tuple[str, ...], numbers: Array, known: Array | None = None) -> pa.Array:
    missing = None if known is None else ~known
    return pa.array(np.array(names, dtype=object)[numbers], pa.string(), mask=missing)


def contexts_table(shop: Shop, sessions: Sessions, first: int) -> pa.Table:
    """A row per session. first: number of the first one in all of the shop's logs."""
    customer = sessions.customer
    return pa.table(
        {
            "session_id": session_ids(first, np.arange(len(customer))),
            "customer_id": numbered("c", customer, 7, sessions.known),
            "segment": named(SEGMENTS, shop.segment[customer], sessions.known & shop.has_segment[customer]),
            "device": named(DEVICES, sessions.device),
            "seen_categories": _seen_categories(sessions.visits),
            "days_since_order": pa.array(sessions.days, mask=np.isnan(sessions.days)),
        }
    )


def session_ids(first: int, places: Array) -> pa.Array:
    return numbered("s", first + places, 8)


def _seen_categories(visits: Array) -> pa.Array:
    """list of (category, weight) [N], the weight being ln(1 + visits)."""
    session, category = np.nonzero(visits)
    ends = np.append(0, np.cumsum(np.bincount(session, minlength=len(visits)))).astype(np.int32)
    weight = pa.array(np.log1p(visits[session, category]).astype(np.float32))
    pairs = pa.StructArray.from_arrays([numbered("k", category, 3), weight], ["category", "weight"])
    return pa.ListArray.from_arrays(pa.array(ends), pairs)


def impressions_table(shop: Shop, chunk: Chunk, first: int, actions: bool) -> pa.Table:
    """A row per impression, with the dirt. actions: whether it has their columns."""
    shown, labels = chunk.shown, chunk.labels
    product = shown.product
    category = product % CATEGORIES
    is_known = shown.visits > 0
    return pa.table(
        {
            "impression_id": impression_ids(shown, first),
            "session_id": pc.if_else(pa.array(labels.lost), None, session_ids(first, shown.session)),
            "clicked": labels.clicked & ~labels.contradicts,
            "bought": labels.bought | labels.contradicts,
            **(labels.actions if actions else {}),
            "product_id": numbered("p", product, 6),
            "product_category": numbered("k", category, 3),
            "product_brand": numbered("b", shop.brand[product], 4, shop.brand[product] >= 0),
            "tags": _tags(shop.tags[product]),
            "price": np.round(shop.price(product), 2),
            "known_category": numbered("k", category, 3, is_known),
            "category_visits": pa.array(np.log1p(shown.visits).astype(np.float32), mask=~is_known),
            "position": (1 + shown.place % PAGE).astype(np.int32),
        }
    )


def impression_ids(shown: Shown, first: int) -> pa.Array:
    """The id of the session with the place in it: unique in all of the shop's logs."""
    return pc.binary_join_element_wise(session_ids(first, shown.session), numbered("", shown.place, 3), "-")


def _tags(tags: Array) -> pa.Array:
    """list of string [M]. tags: int64 [M, MOST_TAGS], -1 none."""
    ends = np.append(0, np.cumsum((tags >= 0).sum(axis=1))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), numbered("t", tags[tags >= 0], 3))


def truth_lines(chunk: Chunk, first: int) -> bytes:
    """The lines of `schemas.truth` for the impressions that are no dirt."""
    labels = chunk.labels
    ids = impression_ids(chunk.shown, first).filter(pa.array(labels.good)).to_pylist()
    rows = zip(ids, labels.p_ctr[labels.good], labels.p_cvr[labels.good], strict=True)
    return "".join(f"{sample_id},{p:.8f},{q:.8f}\n" for sample_id, p, q in rows).encode()
