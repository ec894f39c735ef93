"""From row groups to batches: windows of whole contexts, permuted, then cut every B impressions.

    Rows of row groups --permuted--> Ranges of a window --rebatch--> Rows of B impressions --to_batch--> Batch

Pure functions on flat arrays; only ranges are copied.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from numba import njit

from esmm.batch import Bags, Batch
from esmm.rows import FlatBags, FloatArray, IntArray, Rows
from schemas.fields import IMPRESSION_FIELDS, USER_FIELDS


@njit(cache=True, nogil=True)
def gather_ranges(
    ids: IntArray, weights: FloatArray, offsets: IntArray, num_fields: int, starts: IntArray, counts: IntArray
) -> tuple[IntArray, FloatArray, IntArray]:
    """The bags of the owners starts[i] to starts[i] + counts[i], for every i in turn; field-major again.

    Bags of neighbouring owners lie side by side in a field, so a range of owners is one copy.
    """
    num_owners = (len(offsets) - 1) // num_fields
    total = 0
    for field in range(num_fields):
        for i in range(len(starts)):
            first = field * num_owners + starts[i]
            total += offsets[first + counts[i]] - offsets[first]
    out_ids, out_weights = np.empty(total, np.int64), np.empty(total, np.float32)
    out_offsets = np.empty(num_fields * counts.sum() + 1, np.int64)
    out_offsets[0] = 0
    bag, position = 0, 0
    for field in range(num_fields):
        for i in range(len(starts)):
            first = field * num_owners + starts[i]
            low, high = offsets[first], offsets[first + counts[i]]
            for k in range(high - low):
                out_ids[position + k] = ids[low + k]
                out_weights[position + k] = weights[low + k]
            for k in range(counts[i]):
                out_offsets[bag + k + 1] = position + offsets[first + k + 1] - low
            bag += counts[i]
            position += high - low
    return out_ids, out_weights, out_offsets


def _take_bags(bags: FlatBags, num_fields: int, starts: IntArray, counts: IntArray) -> FlatBags:
    return FlatBags(*gather_ranges(bags.ids, bags.weights, bags.offsets, num_fields, starts, counts))


def take(rows: Rows, contexts: IntArray, begin: IntArray, count: IntArray) -> Rows:
    """The contexts given, each with `count` of its impressions from its `begin`-th on."""
    first = rows.starts[contexts] + begin
    starts = np.concatenate(([0], np.cumsum(count)))
    impressions = np.arange(starts[-1]) + np.repeat(first - starts[:-1], count)
    return Rows(
        starts=starts,
        click=rows.click[impressions],
        conversion=rows.conversion[impressions],
        user=_take_bags(rows.user, len(USER_FIELDS), contexts, np.ones_like(contexts)),
        impression=_take_bags(rows.impression, len(IMPRESSION_FIELDS), first, count),
        sample_id=None if rows.sample_id is None else rows.sample_id[impressions],
        keys=None if rows.keys is None else rows.keys.take(pa.array(contexts)),
    )


def concat(parts: list[Rows]) -> Rows:
    """Several `Rows` end to end."""
    if len(parts) == 1:
        return parts[0]
    shifts = np.cumsum([0] + [part.num_impressions for part in parts])
    starts = [part.starts[1:] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
    with_keys = parts[0].keys is not None
    return Rows(
        starts=np.concatenate([[0], *starts]),
        click=np.concatenate([part.click for part in parts]),
        conversion=np.concatenate([part.conversion for part in parts]),
        user=_concat_bags([part.user for part in parts], len(USER_FIELDS)),
        impression=_concat_bags([part.impression for part in parts], len(IMPRESSION_FIELDS)),
        sample_id=np.concatenate([part.sample_id for part in parts]) if with_keys else None,
        keys=pa.concat_tables([part.keys for part in parts]) if with_keys else None,
    )


def _concat_bags(parts: list[FlatBags], num_fields: int) -> FlatBags:
    ids, weights, lengths = [], [], []
    for field in range(num_fields):
        for part in parts:
            num_owners = (len(part.offsets) - 1) // num_fields
            span = part.offsets[field * num_owners : (field + 1) * num_owners + 1]
            ids.append(part.ids[span[0] : span[-1]])
            weights.append(part.weights[span[0] : span[-1]])
            lengths.append(np.diff(span))
    offsets = np.concatenate([[0], *lengths])
    return FlatBags(np.concatenate(ids), np.concatenate(weights), np.cumsum(offsets, out=offsets))


def cut(num_impressions: IntArray, batch_size: int) -> Iterator[tuple[slice, IntArray, IntArray]]:
    """Cut a sequence of contexts into batches of `batch_size` impressions, the last one shorter.

    num_impressions: int64 [R], each at least 1. Yields which contexts of the sequence a batch touches,
    and from each the first impression and how many. A context on the border is in both batches.
    """
    ends = np.cumsum(num_impressions)
    starts = ends - num_impressions
    total = int(num_impressions.sum())
    for low in range(0, total, batch_size):
        high = min(low + batch_size, total)
        span = slice(int(np.searchsorted(ends, low, "right")), int(np.searchsorted(starts, high, "left")))
        begin = np.maximum(low - starts[span], 0)
        yield span, begin, np.minimum(high, ends[span]) - starts[span] - begin


@dataclass
class Ranges:
    """Contexts of `rows` in the order in which they are to be used, each with `count` of its impressions
    from its `begin`-th on; all int64 [R]."""

    rows: Rows
    contexts: IntArray
    begin: IntArray
    count: IntArray

    @property
    def num_impressions(self) -> int:
        return int(self.count.sum())

    def take(self) -> Rows:
        return take(self.rows, self.contexts, self.begin, self.count)


def permuted(parts: list[Rows], rng: np.random.Generator | None, skip: int = 0) -> Ranges:
    """The contexts of the parts, at random if there is an `rng`, without the first `skip` impressions."""
    rows = concat(parts)
    order = np.arange(rows.num_contexts)
    if rng:
        rng.shuffle(order)
    count = np.diff(rows.starts)[order]
    ends = np.cumsum(count)
    begin = np.clip(skip - (ends - count), 0, count)
    left = count > begin
    return Ranges(rows, order[left], begin[left], (count - begin)[left])


def merge(ranges: list[Ranges]) -> Ranges:
    """Several `Ranges`, one after the other."""
    if len(ranges) == 1:
        return ranges[0]
    shifts = np.cumsum([0] + [part.rows.num_contexts for part in ranges])
    return Ranges(
        concat([part.rows for part in ranges]),
        np.concatenate([part.contexts + shift for part, shift in zip(ranges, shifts[:-1], strict=True)]),
        np.concatenate([part.begin for part in ranges]),
        np.concatenate([part.count for part in ranges]),
    )


def rebatch(stream: Iterable[Ranges], batch_size: int) -> Iterator[Rows]:
    """Cut a stream of contexts into batches of exactly `batch_size` impressions; the last may be shorter."""
    waiting: list[Ranges] = []
    for part in stream:
        waiting.append(part)
        if sum(ranges.num_impressions for ranges in waiting) < batch_size:
            continue
        merged, waiting = merge(waiting), []
        for span, begin, count in cut(merged.count, batch_size):
            batch = Ranges(merged.rows, merged.contexts[span], merged.begin[span] + begin, count)
            rows = batch.take()
            if rows.num_impressions == batch_size:
                yield rows
            else:
                waiting = [Ranges(rows, np.arange(rows.num_contexts), np.zeros_like(count), count)]
    if sum(ranges.num_impressions for ranges in waiting):
        yield merge(waiting).take()


def to_batch(rows: Rows, pin_memory: bool = False) -> Batch:
    """The same arrays as tensors, without a copy (one, if pinned)."""

    def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        result = torch.from_numpy(array)
        return result.pin_memory() if pin_memory else result

    def bags(flat: FlatBags) -> Bags:
        return Bags(tensor(flat.ids), tensor(flat.weights), tensor(flat.offsets))

    context_index = np.repeat(np.arange(rows.num_contexts), np.diff(rows.starts))
    return Batch(
        context_index=tensor(context_index),
        click=tensor(rows.click),
        conversion=tensor(rows.conversion),
        user=bags(rows.user),
        impression=bags(rows.impression),
        keys=_make_keys(rows, context_index),
    )


def _make_keys(rows: Rows, context_index: IntArray) -> pa.Table | None:
    """sample_id, context_id, user_id, click, conversion: one row per impression."""
    if rows.keys is None:
        return None
    repeated = rows.keys.take(pa.array(context_index))
    columns = {
        "sample_id": pa.array(rows.sample_id),
        "context_id": repeated["context_id"],
        "user_id": repeated["user_id"],
        "click": pa.array(rows.click.astype(np.int8)),
        "conversion": pa.array(rows.conversion.astype(np.int8)),
    }
    return pa.table(columns)
