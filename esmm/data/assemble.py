"""From row groups to batches: windows of whole contexts, permuted, then cut every B impressions.

    Rows of row groups --permuted--> Ranges of a window --rebatch--> Ranges of a batch --gather--> Batch

Only `gather` touches the values; what comes before says which of them, and in which order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from esmm.batch import Batch
from esmm.data.gather_kernel import Side, gather_bags, gather_labels, gather_numbers
from esmm.data.row_group import Rows, key_schema, label_columns, number_columns
from esmm.embedding.bags import Bags, field_offsets
from schemas.schema import Schema

IntArray = npt.NDArray[np.int64]


@dataclass
class Ranges:
    """Contexts of several `Rows`, each with some of its impressions, in the order of their use.

    All int64 [S]: context i is number context[i] of parts[part[i]], and its impressions are numbers
    first[i] to first[i] + count[i] there.
    """

    parts: list[Rows]
    part: IntArray
    context: IntArray
    first: IntArray
    count: IntArray

    @property
    def num_impressions(self) -> int:
        return int(self.count.sum())

    def only(self, chosen: slice | npt.NDArray[np.bool_]) -> "Ranges":
        return Ranges(
            self.parts, self.part[chosen], self.context[chosen], self.first[chosen], self.count[chosen]
        )

    def without_idle_parts(self) -> "Ranges":
        """The same with only the parts that are used, so that the memory of the others can go."""
        used, part = np.unique(self.part, return_inverse=True)
        return Ranges([self.parts[i] for i in used], part, self.context, self.first, self.count)


def no_ranges() -> Ranges:
    """No contexts, no impressions: the batch of a rank that has run out of them."""
    nothing = np.empty(0, np.int64)
    return Ranges([], nothing, nothing, nothing, nothing)


def permuted(parts: list[Rows], rng: np.random.Generator | None, skip: int = 0) -> Ranges:
    """The contexts of the parts, at random if there is an `rng`, without the first `skip` impressions."""
    contexts = [np.arange(rows.num_contexts) for rows in parts]
    part = np.repeat(np.arange(len(parts)), [rows.num_contexts for rows in parts])
    first = np.concatenate([rows.starts[:-1] for rows in parts])
    count = np.concatenate([np.diff(rows.starts) for rows in parts]).astype(np.int64)
    order = np.arange(len(part))
    if rng:
        rng.shuffle(order)
    ends = np.cumsum(count[order])
    gone = np.clip(skip - (ends - count[order]), 0, count[order])
    ranges = Ranges(
        parts, part[order], np.concatenate(contexts)[order], first[order] + gone, count[order] - gone
    )
    return ranges.only(ranges.count > 0)


def merge(ranges: list[Ranges]) -> Ranges:
    """Several `Ranges`, one after the other."""
    if len(ranges) == 1:
        return ranges[0]
    shifts = np.cumsum([0] + [len(one.parts) for one in ranges])
    return Ranges(
        [rows for one in ranges for rows in one.parts],
        np.concatenate([one.part + shift for one, shift in zip(ranges, shifts[:-1], strict=True)]),
        np.concatenate([one.context for one in ranges]),
        np.concatenate([one.first for one in ranges]),
        np.concatenate([one.count for one in ranges]),
    )


def cut(ranges: Ranges, batch_size: int) -> Iterator[Ranges]:
    """Pieces of `batch_size` impressions, the last one shorter. A context on the border is in both pieces."""
    ends = np.cumsum(ranges.count)
    starts = ends - ranges.count
    for low in range(0, ranges.num_impressions, batch_size):
        span = slice(
            int(np.searchsorted(ends, low, "right")),
            int(np.searchsorted(starts, low + batch_size, "left")),
        )
        begin = np.maximum(low - starts[span], 0)
        piece = ranges.only(span)
        piece.first = piece.first + begin
        piece.count = np.minimum(low + batch_size, ends[span]) - starts[span] - begin
        yield piece


def rebatch(stream: Iterable[Ranges], batch_size: int) -> Iterator[Ranges]:
    """Cut a stream of contexts into batches of exactly `batch_size` impressions; the last may be shorter."""
    waiting: list[Ranges] = []
    num_waiting = 0
    for window in stream:
        waiting.append(window)
        num_waiting += window.num_impressions
        if num_waiting < batch_size:
            continue
        merged = merge(waiting)
        waiting = []
        num_waiting = num_waiting % batch_size
        for piece in cut(merged, batch_size):
            if piece.num_impressions == batch_size:
                yield piece
            else:
                waiting = [piece.without_idle_parts()]
    if num_waiting:
        yield merge(waiting)


class Gatherer:
    """Makes batches of `Ranges`: ids shifted into the fused table's row space, weights final.

    A list says how interest divides among its ids: a weighted mean, whatever its length. A cross field
    says how often this user met this very category or shop: the value is the signal, so a sum.
    """

    def __init__(self, schema: Schema, with_keys: bool, pin_memory: bool) -> None:
        self.first_row = np.array(list(field_offsets(schema.buckets).values()), np.int32)
        self.normalised = np.array([field.multi and field.side != "cross" for field in schema.fields])
        self.num_user_fields = len(schema.user_fields)
        self.num_impression_fields = len(schema.impression_fields)
        self.num_user_numbers = len(schema.user_numbers)
        self.num_numbers = len(number_columns(schema))
        self.num_labels = len(label_columns(schema))
        self.has_weights = schema.has_weights
        self.keys = key_schema(schema) if with_keys else None
        self.pin_memory = pin_memory

    def __call__(self, ranges: Ranges) -> Batch:
        """Impressions of row groups that could not be read are left out."""
        readable = np.array([rows.owned is not None for rows in ranges.parts], bool)
        if not readable.all():
            ranges = ranges.only(readable[ranges.part]).without_idle_parts()
        context_index = np.repeat(np.arange(len(ranges.count)), ranges.count)
        click, conversion, *others = (self._labels(ranges, label) for label in range(self.num_labels))
        return Batch(
            context_index=self._tensor(context_index),
            click=self._tensor(click),
            conversion=self._tensor(conversion),
            bags=self._bags(ranges),
            num_user_fields=self.num_user_fields,
            num_impression_fields=self.num_impression_fields,
            **(self._numbers(ranges) if self.num_numbers else {}),
            action=self._tensor(others[0]) if others else None,
            keys=_gather_keys(self.keys, ranges, context_index, click, conversion) if self.keys else None,
        )

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.pin_memory else tensor

    def _labels(self, ranges: Ranges, label: int) -> npt.NDArray[np.float32]:
        places = np.array([rows.labels[label] for rows in ranges.parts], np.int64)
        return gather_labels(places, ranges.part, ranges.first, ranges.count)

    def _numbers(self, ranges: Ranges) -> dict[str, Any]:
        """The numeric fields of contexts and of impressions, and the impressions' weights."""
        places = np.array([rows.numbers for rows in ranges.parts], np.int64).reshape(-1, self.num_numbers)
        of_contexts, of_impressions = np.split(places, [self.num_user_numbers], axis=1)
        user = gather_numbers(of_contexts, ranges.part, ranges.context, np.ones_like(ranges.count))
        impression = gather_numbers(of_impressions, ranges.part, ranges.first, ranges.count)
        found = {"user_numbers": user, "impression_numbers": impression}
        if self.has_weights:
            found = {**found, "impression_numbers": impression[:, :-1], "weight": impression[:, -1]}
        return {name: self._tensor(np.ascontiguousarray(array)) for name, array in found.items()}

    def _bags(self, ranges: Ranges) -> Bags:
        before = self.num_user_fields  # the user's fields come first
        user = self._side(slice(before), ranges, ranges.context, np.ones_like(ranges.count))
        impression = self._side(slice(before, None), ranges, ranges.first, ranges.count)
        return Bags(*map(torch.from_numpy, gather_bags(user, impression)))

    def _side(self, chosen: slice, ranges: Ranges, first: IntArray, count: IntArray) -> Side:
        first_row = self.first_row[chosen]
        places = np.array([rows.fields[chosen] for rows in ranges.parts], np.int64)
        return Side(
            fields=places.reshape(-1, len(first_row), 3),
            first_row=first_row,
            normalised=self.normalised[chosen],
            part=ranges.part,
            first=first,
            length=count,
        )


def _gather_keys(
    schema: pa.Schema,
    ranges: Ranges,
    context_index: IntArray,
    click: npt.NDArray[Any],
    conversion: npt.NDArray[Any],
) -> pa.Table:
    """sample_id, context_id, user_id, click, conversion: one row per impression."""
    before = np.cumsum([0] + [rows.num_impressions for rows in ranges.parts])
    # Impression i of the batch is number i of all ranges, and its range begins at that of its context.
    begin = before[ranges.part] + ranges.first - (np.cumsum(ranges.count) - ranges.count)
    keys = pa.concat_tables([schema.empty_table(), *(rows.keys for rows in ranges.parts)])
    taken = keys.take(pa.array(np.arange(len(context_index)) + begin[context_index]))
    for name, values in (("click", click), ("conversion", conversion)):
        taken = taken.append_column(name, pa.array(values.astype(np.int8)))
    return taken
