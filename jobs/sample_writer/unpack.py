"""From packed rows to sample rows: pure functions on Arrow batches, one open context carried along."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs.raw_logs import packed_rows
from jobs.raw_logs.packed_rows import frozen
from jobs.sample_writer import unpack_kernel
from jobs.sample_writer.quarantine_file import Rejected
from schemas.fields import FIELDS, IMPRESSION_FIELDS, USER_FIELDS
from schemas.raw_log import QUARANTINE_REASONS
from schemas.samples import arrow_schema

NO_COMMON_RECORD = QUARANTINE_REASONS.index("no_common_record")
DUPLICATE_COMMON_RECORD = QUARANTINE_REASONS.index("duplicate_common_record")
DUPLICATE_SAMPLE_ID = QUARANTINE_REASONS.index("duplicate_sample_id")

LAYOUT = unpack_kernel.UnpackLayout(
    packed_rows.FIELD_MULTI,
    packed_rows.FIELD_WEIGHTED,
    packed_rows.NUM_USER_FIELDS,
    packed_rows.CONTEXT_HEADER,
    packed_rows.IMPRESSION_HEADER,
    packed_rows.KIND_CONTEXT,
)

NO_WORDS = np.empty(0, np.int32)
NO_IDS = np.empty(0, np.int64)


@dataclass
class _Rows:
    """Packed rows: row i is words[begins[i] : ends[i]]."""

    words: np.ndarray
    keys: np.ndarray
    kinds: np.ndarray
    orders: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


@dataclass
class _Open:
    """The context at the end of a batch, of which more impressions may follow in the next one."""

    key: int = 0
    context: np.ndarray | None = None
    impressions: np.ndarray = field(default_factory=lambda: NO_WORDS)
    counted: bool = False
    emitted: np.ndarray = field(default_factory=lambda: NO_IDS)  # sample_ids in its complete rows


class Unpacker:
    """Turns batches of packed rows, in (key, kind, order), into batches of sample rows.

    A row takes up to `max_impressions` impressions of one context wherever the batches were cut,
    so the samples depend on the logs alone. Memory: one batch, one open row, and 8 bytes for every
    impression of the open context.
    """

    def __init__(self, max_impressions: int) -> None:
        self._max = max_impressions
        self._open = _Open()
        self._rejected: list[Rejected] = []
        self._num_rows = 0
        self.num_contexts = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The sample rows that are complete after this batch."""
        rows = _rows_of(batch)
        broken = rows.kinds == packed_rows.KIND_QUARANTINED
        if broken.any():
            self._rejected.append(_quarantined(rows, np.flatnonzero(broken)))
            rows = _select(rows, ~broken)
        if len(rows.keys):
            yield from self._process(_prepend(self._open, rows), last=False)

    def finish(self) -> Iterator[pa.RecordBatch]:
        """The last, open row."""
        if len(self._open.impressions):
            yield from self._process(_prepend(self._open, _select(None, None)), last=True)
        self._open = _Open()

    def take_rejected(self) -> list[Rejected]:
        """The lines found to be of no use since the last call."""
        taken, self._rejected = self._rejected, []
        return taken

    def _process(self, rows: _Rows, last: bool) -> Iterator[pa.RecordBatch]:
        plan = _plan(rows, self._max, NO_IDS)
        repeated = _repeated_impressions(rows, plan, self._open)
        if len(repeated):
            plan = _plan(rows, self._max, repeated)
        self._reject(rows, plan, repeated)
        self.num_contexts += _num_new_contexts(plan.key, self._open)
        complete = plan if last else self._keep_open(rows, plan, with_gaps=len(repeated) > 0)
        if len(complete.key):
            yield _columns(rows.words, complete, self._num_rows)
            self._num_rows += len(complete.key)

    def _reject(self, rows: _Rows, plan: "_Plan", repeated: np.ndarray) -> None:
        of_repeated = np.searchsorted(rows.begins, repeated, side="right") - 1
        again = rows.orders[plan.again]
        for reason, orders in (
            (NO_COMMON_RECORD, _impression_orders(rows, plan.orphans[:, 0], plan.orphans[:, 1])),
            (DUPLICATE_COMMON_RECORD, again),
            (DUPLICATE_SAMPLE_ID, _impression_orders(rows, of_repeated, repeated)),
        ):
            if len(orders):
                self._rejected.append(Rejected(np.full(len(orders), reason, np.int8), orders))

    def _keep_open(self, rows: _Rows, plan: "_Plan", with_gaps: bool) -> "_Plan":
        """Remember the last key's context and its unfinished row; the plan without that row."""
        key = rows.keys[-1]
        of_key = np.flatnonzero((rows.keys == key) & (rows.kinds == packed_rows.KIND_CONTEXT))
        context = rows.words[rows.begins[of_key[0]] : rows.ends[of_key[0]]].copy() if len(of_key) else None
        same = self._open.key == key and self._open.context is not None
        mine = bool(len(plan.key) and plan.key[-1] == key)
        unfinished = mine and plan.first[-1] - plan.first[-2] < self._max
        complete = plan.without_last_row() if unfinished else plan
        num_others = len(complete.key) - np.count_nonzero(complete.key == key)
        emitted = _sample_ids(rows.words, complete.at[complete.first[num_others] :])
        self._open = _Open(
            int(key),
            context,
            _impression_words(rows, plan.at[plan.first[-2] :], with_gaps) if unfinished else NO_WORDS,
            mine or (self._open.counted and same),
            np.concatenate([self._open.emitted, emitted]) if same else emitted,
        )
        return complete


@dataclass
class _Plan:
    """What unpack_kernel.plan_rows found; first has one entry more than there are rows."""

    context: np.ndarray
    key: np.ndarray
    first: np.ndarray
    at: np.ndarray
    orphans: np.ndarray
    again: np.ndarray

    def without_last_row(self) -> "_Plan":
        first = self.first[:-1]
        return _Plan(self.context[:-1], self.key[:-1], first, self.at[: first[-1]], self.orphans, self.again)


def _rows_of(batch: pa.RecordBatch) -> _Rows:
    blob = batch.column(3)
    offsets = np.frombuffer(blob.buffers()[1], np.int32)[blob.offset : blob.offset + len(blob) + 1] // 4
    words = np.frombuffer(blob.buffers()[2], np.int32)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    columns = [batch.column(i).to_numpy(zero_copy_only=False) for i in range(3)]
    return _Rows(words, columns[0].view(np.uint64), columns[1], columns[2], offsets[:-1], offsets[1:])


def _select(rows: _Rows | None, keep: np.ndarray | None) -> _Rows:
    if rows is None or keep is None:
        none = np.empty(0, np.int64)
        return _Rows(NO_WORDS, none.astype(np.uint64), none.astype(np.int8), none, none, none)
    return _Rows(
        rows.words, rows.keys[keep], rows.kinds[keep], rows.orders[keep], rows.begins[keep], rows.ends[keep]
    )


def _prepend(state: _Open, rows: _Rows) -> _Rows:
    """The rows with the open context, and its open impressions, in front."""
    if state.context is None:
        return rows
    parts = [state.context, state.impressions] if len(state.impressions) else [state.context]
    ends = np.cumsum([len(part) for part in parts])
    kinds = [packed_rows.KIND_CONTEXT, packed_rows.KIND_IMPRESSIONS][: len(parts)]
    return _Rows(
        np.concatenate([*parts, rows.words]),
        np.concatenate([np.full(len(parts), state.key, np.uint64), rows.keys]),
        np.concatenate([np.array(kinds, np.int8), rows.kinds]),
        np.concatenate([np.zeros(len(parts), np.int64), rows.orders]),
        np.concatenate([ends - [len(part) for part in parts], rows.begins + ends[-1]]),
        np.concatenate([ends, rows.ends + ends[-1]]),
    )


def _plan(rows: _Rows, max_impressions: int, dropped: np.ndarray) -> _Plan:
    shortest = packed_rows.IMPRESSION_HEADER + len(IMPRESSION_FIELDS)
    most = int(rows.ends[-1]) // shortest + 1
    context, key = np.empty(most, np.int64), np.empty(most, np.uint64)
    first, at = np.empty(most + 1, np.int64), np.empty(most, np.int64)
    orphans, again = np.empty((most, 2), np.int64), np.empty(len(rows.keys), np.int64)
    num_rows, num_impressions, num_orphans, num_again = unpack_kernel.plan_rows(
        LAYOUT, frozen(rows.words), frozen(rows.keys), frozen(rows.kinds),
        rows.begins.astype(np.int64), rows.ends.astype(np.int64),
        max_impressions, dropped, context, key, first, at, orphans, again,
    )  # fmt: skip
    return _Plan(
        context[:num_rows], key[:num_rows], first[: num_rows + 1],
        at[:num_impressions], orphans[:num_orphans], again[:num_again],
    )  # fmt: skip


def _num_new_contexts(keys: np.ndarray, state: _Open) -> int:
    if not len(keys):
        return 0
    return int(np.count_nonzero(keys[1:] != keys[:-1])) + 1 - int(state.counted and int(keys[0]) == state.key)


def _quarantined(rows: _Rows, indexes: np.ndarray) -> Rejected:
    reasons, texts = np.empty(len(indexes), np.int8), []
    for n, i in enumerate(indexes.tolist()):
        blob = rows.words[rows.begins[i] : rows.ends[i]]
        reasons[n] = blob[0]
        texts.append(blob[2:].tobytes()[: int(blob[1])])
    return Rejected(reasons, rows.orders[indexes], texts)


def _sample_ids(words: np.ndarray, at: np.ndarray) -> np.ndarray:
    """int64: sample_id of the packed impressions at some positions."""
    return _int64(words, at)


def _int64(words: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The 64-bit numbers whose low words are at `at`."""
    return words[at].view(np.uint32).astype(np.int64) | (words[at + 1].astype(np.int64) << 32)


def _impression_orders(rows: _Rows, of_rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Where the impressions at some positions stand in the logs; of_rows: the packed rows they are in."""
    files = rows.orders[of_rows] >> packed_rows.OFFSET_BITS
    return (files << packed_rows.OFFSET_BITS) | _int64(rows.words, at + 2)


def _impression_words(rows: _Rows, at: np.ndarray, with_gaps: bool) -> np.ndarray:
    """The packed impressions at `at`, the last of the rows; end to end unless some were left out."""
    if not with_gaps:
        return rows.words[at[0] : rows.ends[-1]].copy()
    words = frozen(rows.words)
    return np.concatenate([words[p : unpack_kernel.impression_end(words, p, LAYOUT)] for p in at.tolist()])


def _repeated_impressions(rows: _Rows, plan: _Plan, state: _Open) -> np.ndarray:
    """Positions of the impressions whose sample_id their context had before; ascending.

    Logs count sample_ids up, and then one comparison with the impression before is all it takes.
    """
    ids, keys = _sample_ids(rows.words, plan.at), np.repeat(plan.key, np.diff(plan.first))
    goes_on = len(state.emitted) > 0 and len(keys) > 0 and int(keys[0]) == state.key
    behind = (ids[1:] <= ids[:-1]) & (keys[1:] == keys[:-1])
    if not behind.any() and not (goes_on and ids[0] <= state.emitted.max()):
        return NO_IDS
    earlier = state.emitted if goes_on else NO_IDS
    ids = np.concatenate([earlier, ids])
    keys = np.concatenate([np.full(len(earlier), state.key, np.uint64), keys])
    order = np.lexsort((ids, keys))  # stable: of equal ones the first in the logs comes first
    again = (ids[order[1:]] == ids[order[:-1]]) & (keys[order[1:]] == keys[order[:-1]])
    return plan.at[np.sort(order[1:][again]) - len(earlier)]


def _columns(words: np.ndarray, plan: _Plan, first_row: int) -> pa.RecordBatch:
    """The planned rows as a record batch in the layout of `schemas.samples`; buffers are not copied."""
    words = frozen(words)
    num_rows, num_impressions = len(plan.key), len(plan.at)
    totals = unpack_kernel.count_values(LAYOUT, words, plan.context, plan.at)
    weighted = totals * packed_rows.FIELD_WEIGHTED
    begin, weight_begin = np.cumsum(totals) - totals, np.cumsum(weighted) - weighted
    ids, weights = np.empty(totals.sum(), np.int32), np.empty(weighted.sum(), np.float32)
    row_ends = np.empty((packed_rows.NUM_FIELDS, num_rows + 1), np.int32)
    lengths = np.empty((packed_rows.NUM_FIELDS, num_impressions), np.int32)
    user_id, sample_id = np.empty(num_rows, np.int64), np.empty(num_impressions, np.int64)
    click, conversion = np.empty(num_impressions, np.int8), np.empty(num_impressions, np.int8)
    unpack_kernel.fill_columns(
        LAYOUT, words, words.view(np.float32), first_row, plan.context, plan.first, plan.at,
        begin, weight_begin, ids, weights, row_ends, lengths, user_id, sample_id, click, conversion,
    )  # fmt: skip
    schema = arrow_schema()
    per_row = plan.first.astype(np.int32)
    columns: dict[str, pa.Array] = {
        "context_id": _hexadecimal(plan.key),
        "user_id": pa.array(user_id, mask=user_id < 0),
        "sample_id": _list(schema, "sample_id", per_row, sample_id),
        "click": _list(schema, "click", per_row, click),
        "conversion": _list(schema, "conversion", per_row, conversion),
    }
    for i, f in enumerate(FIELDS):
        values = ids[begin[i] : begin[i] + totals[i]]
        offsets = row_ends[i] if f.multi else per_row
        is_scalar = f in USER_FIELDS and not f.multi
        columns[f.column] = pa.array(values) if is_scalar else _list(schema, f.column, offsets, values)
        if f.multi and f.per_impression:
            columns[f.length_column] = _list(schema, f.length_column, per_row, lengths[i])
        if f.weighted:
            part = weights[weight_begin[i] : weight_begin[i] + weighted[i]]
            columns[f.weight_column] = _list(schema, f.weight_column, offsets, part)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _list(schema: pa.Schema, name: str, offsets: np.ndarray, values: np.ndarray) -> pa.Array:
    kind = schema.field(name).type
    leaf = pa.Array.from_buffers(kind.value_type, len(values), [None, pa.py_buffer(values)])
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets)], children=[leaf])


def _hexadecimal(keys: np.ndarray) -> pa.Array:
    """Each key as 16 hexadecimal digits."""
    text = keys.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, 16 * len(keys) + 1, 16, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
