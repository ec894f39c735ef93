"""From packed rows to sample rows: pure functions on Arrow batches, one open context carried along."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs import packed, unpack_kernel
from jobs.packed import frozen
from schemas.fields import FIELDS, IMPRESSION_FIELDS, USER_FIELDS
from schemas.raw_log import QUARANTINE_REASONS
from schemas.samples import arrow_schema

NO_COMMON_RECORD = QUARANTINE_REASONS.index("no_common_record")
DUPLICATE_COMMON_RECORD = QUARANTINE_REASONS.index("duplicate_common_record")

LAYOUT = unpack_kernel.Layout(
    packed.FIELD_MULTI,
    packed.FIELD_WEIGHTED,
    packed.NUM_USER_FIELDS,
    packed.CONTEXT_HEADER,
    packed.IMPRESSION_HEADER,
    packed.KIND_CONTEXT,
)

NO_WORDS = np.empty(0, np.int32)


@dataclass
class Rejected:
    """A line the writer can't use: where it is, and its text if it travelled along."""

    reason: int
    file_number: int
    offset: int
    text: bytes | None = None


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


class Unpacker:
    """Turns batches of packed rows, in (key, kind, order), into batches of sample rows.

    A row takes up to `max_impressions` impressions of one context wherever the batches were cut,
    so the samples depend on the logs alone. Memory: one batch and one open row.
    """

    def __init__(self, max_impressions: int) -> None:
        self._max = max_impressions
        self._open = _Open()
        self.rejected: list[Rejected] = []
        self.num_contexts = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The sample rows that are complete after this batch."""
        rows = _rows_of(batch)
        broken = rows.kinds == packed.KIND_QUARANTINED
        if broken.any():
            self.rejected += _quarantined(rows, np.flatnonzero(broken))
            rows = _select(rows, ~broken)
        if len(rows.keys):
            yield from self._process(_prepend(self._open, rows), last=False)

    def finish(self) -> Iterator[pa.RecordBatch]:
        """The last, open row."""
        if len(self._open.impressions):
            yield from self._process(_prepend(self._open, _select(None, None)), last=True)

    def _process(self, rows: _Rows, last: bool) -> Iterator[pa.RecordBatch]:
        plan = _plan(rows, self._max)
        self.rejected += _orphans(rows, plan.orphans) + _repeated(rows, plan.again)
        self.num_contexts += _num_new_contexts(plan.key, self._open)
        complete = plan if last else self._keep_open(rows, plan)
        if len(complete.key):
            yield _columns(rows.words, complete)

    def _keep_open(self, rows: _Rows, plan: "_Plan") -> "_Plan":
        """Remember the last key's context and its unfinished row; the plan without that row."""
        key = rows.keys[-1]
        of_key = np.flatnonzero((rows.keys == key) & (rows.kinds == packed.KIND_CONTEXT))
        context = rows.words[rows.begins[of_key[0]] : rows.ends[of_key[0]]].copy() if len(of_key) else None
        mine = bool(len(plan.key) and plan.key[-1] == key)
        unfinished = mine and plan.first[-1] - plan.first[-2] < self._max
        self._open = _Open(
            int(key), context, NO_WORDS, mine or (self._open.counted and self._open.key == key)
        )
        if not unfinished:
            return plan
        at = plan.at[plan.first[-2] :]
        # In the given order the impressions of a context lie end to end.
        self._open.impressions = rows.words[at[0] : rows.ends[-1]].copy()
        return _Plan(
            plan.context[:-1],
            plan.key[:-1],
            plan.first[:-1],
            plan.at[: plan.first[-2]],
            plan.orphans,
            plan.again,
        )


@dataclass
class _Plan:
    """What unpack_kernel.plan_rows found; first has one entry more than there are rows."""

    context: np.ndarray
    key: np.ndarray
    first: np.ndarray
    at: np.ndarray
    orphans: np.ndarray
    again: np.ndarray


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
    kinds = [packed.KIND_CONTEXT, packed.KIND_IMPRESSIONS][: len(parts)]
    return _Rows(
        np.concatenate([*parts, rows.words]),
        np.concatenate([np.full(len(parts), state.key, np.uint64), rows.keys]),
        np.concatenate([np.array(kinds, np.int8), rows.kinds]),
        np.concatenate([np.zeros(len(parts), np.int64), rows.orders]),
        np.concatenate([ends - [len(part) for part in parts], rows.begins + ends[-1]]),
        np.concatenate([ends, rows.ends + ends[-1]]),
    )


def _plan(rows: _Rows, max_impressions: int) -> _Plan:
    shortest = packed.IMPRESSION_HEADER + len(IMPRESSION_FIELDS)
    most = int(rows.ends[-1]) // shortest + 1
    context, key = np.empty(most, np.int64), np.empty(most, np.uint64)
    first, at = np.empty(most + 1, np.int64), np.empty(most, np.int64)
    orphans, again = np.empty((most, 2), np.int64), np.empty(len(rows.keys), np.int64)
    num_rows, num_impressions, num_orphans, num_again = unpack_kernel.plan_rows(
        LAYOUT, frozen(rows.words), frozen(rows.keys), frozen(rows.kinds),
        rows.begins.astype(np.int64), rows.ends.astype(np.int64),
        max_impressions, context, key, first, at, orphans, again,
    )  # fmt: skip
    return _Plan(
        context[:num_rows], key[:num_rows], first[: num_rows + 1],
        at[:num_impressions], orphans[:num_orphans], again[:num_again],
    )  # fmt: skip


def _num_new_contexts(keys: np.ndarray, state: _Open) -> int:
    if not len(keys):
        return 0
    return int(np.count_nonzero(keys[1:] != keys[:-1])) + 1 - int(state.counted and int(keys[0]) == state.key)


def _quarantined(rows: _Rows, indexes: np.ndarray) -> list[Rejected]:
    found = []
    for i in indexes.tolist():
        blob = rows.words[rows.begins[i] : rows.ends[i]]
        text = blob[2:].tobytes()[: int(blob[1])]
        order = int(rows.orders[i])
        found.append(Rejected(int(blob[0]), order >> packed.OFFSET_BITS, order & packed.OFFSET_MASK, text))
    return found


def _orphans(rows: _Rows, orphans: np.ndarray) -> list[Rejected]:
    files = rows.orders[orphans[:, 0]] >> packed.OFFSET_BITS
    low, high = rows.words[orphans[:, 1] + 2].view(np.uint32).astype(np.int64), rows.words[orphans[:, 1] + 3]
    offsets = low | (high.astype(np.int64) << 32)
    return [Rejected(NO_COMMON_RECORD, f, o) for f, o in zip(files.tolist(), offsets.tolist(), strict=True)]


def _repeated(rows: _Rows, again: np.ndarray) -> list[Rejected]:
    orders = rows.orders[again].tolist()
    return [
        Rejected(DUPLICATE_COMMON_RECORD, o >> packed.OFFSET_BITS, o & packed.OFFSET_MASK) for o in orders
    ]


def _columns(words: np.ndarray, plan: _Plan) -> pa.RecordBatch:
    """The planned rows as a record batch in the layout of `schemas.samples`; buffers are not copied."""
    words = frozen(words)
    num_rows, num_impressions = len(plan.key), len(plan.at)
    totals = unpack_kernel.count_values(LAYOUT, words, plan.context, plan.at)
    weighted = totals * packed.FIELD_WEIGHTED
    begin, weight_begin = np.cumsum(totals) - totals, np.cumsum(weighted) - weighted
    ids, weights = np.empty(totals.sum(), np.int32), np.empty(weighted.sum(), np.float32)
    row_ends = np.empty((packed.NUM_FIELDS, num_rows + 1), np.int32)
    lengths = np.empty((packed.NUM_FIELDS, num_impressions), np.int32)
    user_id, sample_id = np.empty(num_rows, np.int64), np.empty(num_impressions, np.int64)
    click, conversion = np.empty(num_impressions, np.int8), np.empty(num_impressions, np.int8)
    unpack_kernel.fill_columns(
        LAYOUT, words, words.view(np.float32), plan.context, plan.first, plan.at,
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
