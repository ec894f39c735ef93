"""From packed rows to sample rows: pure functions on Arrow batches, one open context carried along."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pyarrow as pa

from jobs.raw_logs import packed_rows
from jobs.raw_logs.packed_rows import frozen
from jobs.sample_writer import unpack_kernel
from jobs.sample_writer.columns import record_batch, unpack_layout
from jobs.sample_writer.quarantine_file import Rejected
from jobs.sample_writer.unpack_kernel import PackedRows, RowPlan, UnpackLayout
from schemas.raw_log import QUARANTINE_REASONS
from schemas.schema import Schema, Tables

NO_COMMON_RECORD = QUARANTINE_REASONS.index("no_common_record")
DUPLICATE_COMMON_RECORD = QUARANTINE_REASONS.index("duplicate_common_record")
DUPLICATE_SAMPLE_ID = QUARANTINE_REASONS.index("duplicate_sample_id")
OTHER_CONTEXT_ROW = QUARANTINE_REASONS.index("other_context_row")

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

    def __init__(self, schema: Schema, max_impressions: int) -> None:
        self._schema = schema
        self._layout = unpack_layout(schema)
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
        taken = self._rejected
        self._rejected = []
        return taken

    def _process(self, rows: _Rows, last: bool) -> Iterator[pa.RecordBatch]:
        plan = _plan(self._layout, rows, self._max, NO_IDS)
        repeated = _repeated_impressions(rows, plan, self._open)
        if len(repeated):
            plan = _plan(self._layout, rows, self._max, repeated)
        self._reject(rows, plan, repeated)
        self.num_contexts += _num_new_contexts(plan.key, self._open)
        complete = plan if last else self._keep_open(rows, plan, with_gaps=len(repeated) > 0)
        if len(complete.key):
            yield record_batch(self._schema, rows.words, complete, self._num_rows)
            self._num_rows += len(complete.key)

    def _reject(self, rows: _Rows, plan: RowPlan, repeated: np.ndarray) -> None:
        of_repeated = np.searchsorted(rows.begins, repeated, side="right") - 1
        if self._schema.tables:
            again = rows.begins[plan.again]
            self._reject_rows(OTHER_CONTEXT_ROW, packed_rows.CONTEXTS, rows.words, again)
            self._reject_rows(NO_COMMON_RECORD, packed_rows.IMPRESSIONS, rows.words, plan.orphans[:, 1])
            self._reject_rows(DUPLICATE_SAMPLE_ID, packed_rows.IMPRESSIONS, rows.words, repeated)
            return
        for reason, orders in (
            (NO_COMMON_RECORD, _impression_orders(rows, plan.orphans[:, 0], plan.orphans[:, 1])),
            (DUPLICATE_COMMON_RECORD, rows.orders[plan.again]),
            (DUPLICATE_SAMPLE_ID, _impression_orders(rows, of_repeated, repeated)),
        ):
            if len(orders):
                self._rejected.append(Rejected(np.full(len(orders), reason, np.int8), orders))

    def _reject_rows(self, reason: int, table: int, words: np.ndarray, at: np.ndarray) -> None:
        """Set aside rows of a table, which nobody can read again: their keys are what is kept of them."""
        if len(at):
            orders = np.full(len(at), table << packed_rows.OFFSET_BITS)
            texts = [row_key(self._schema, table, words, p) for p in at.tolist()]
            self._rejected.append(Rejected(np.full(len(at), reason, np.int8), orders, texts))

    def _keep_open(self, rows: _Rows, plan: RowPlan, with_gaps: bool) -> RowPlan:
        """Remember the last key's context and its unfinished row; the plan without that row."""
        key = rows.keys[-1]
        of_key = np.flatnonzero((rows.keys == key) & (rows.kinds == packed_rows.KIND_CONTEXT))
        context = rows.words[rows.begins[of_key[0]] : rows.ends[of_key[0]]].copy() if len(of_key) else None
        same = self._open.key == key and self._open.context is not None
        mine = bool(len(plan.key) and plan.key[-1] == key)
        unfinished = mine and plan.first[-1] - plan.first[-2] < self._max
        complete = _without_last_row(plan) if unfinished else plan
        num_others = len(complete.key) - np.count_nonzero(complete.key == key)
        emitted = _sample_ids(rows.words, complete.at[complete.first[num_others] :])
        self._open = _Open(
            int(key),
            context,
            _impression_words(self._layout, rows, plan.at[plan.first[-2] :], with_gaps)
            if unfinished
            else NO_WORDS,
            mine or (self._open.counted and same),
            np.concatenate([self._open.emitted, emitted]) if same else emitted,
        )
        return complete


def row_key(schema: Schema, table: int, words: np.ndarray, at: int) -> bytes:
    """The key of the packed row of a table that begins at `at`, as JSON."""
    tables = cast(Tables, schema.tables)
    is_context = table == packed_rows.CONTEXTS
    name = tables.context_id if is_context else tables.sample_id
    if not is_context and schema.sample_id_type == "int64":
        return json.dumps({name: int(_int64(words, np.array([at]))[0])}).encode()
    text = at + (packed_rows.CONTEXT_HEADER if is_context else packed_rows.IMPRESSION_HEADER) + 1
    content = words[text + 1 : text + words[text - 1]].tobytes()[: int(words[text])]
    return json.dumps({name: content.decode()}, ensure_ascii=False).encode()


def _without_last_row(plan: RowPlan) -> RowPlan:
    first = plan.first[:-1]
    return plan._replace(context=plan.context[:-1], key=plan.key[:-1], first=first, at=plan.at[: first[-1]])


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


def _plan(layout: UnpackLayout, rows: _Rows, max_impressions: int, dropped: np.ndarray) -> RowPlan:
    packed = PackedRows(
        words=frozen(rows.words),
        keys=frozen(rows.keys),
        kinds=frozen(rows.kinds),
        begins=rows.begins.astype(np.int64),
        ends=rows.ends.astype(np.int64),
    )
    plan = _room_for_plan(layout, rows)
    num_rows, num_impressions, num_orphans, num_again = unpack_kernel.plan_rows(
        layout, packed, max_impressions, dropped, plan
    )
    return RowPlan(
        context=plan.context[:num_rows],
        key=plan.key[:num_rows],
        first=plan.first[: num_rows + 1],
        at=plan.at[:num_impressions],
        orphans=plan.orphans[:num_orphans],
        again=plan.again[:num_again],
    )


def _room_for_plan(layout: UnpackLayout, rows: _Rows) -> RowPlan:
    """A plan for as many impressions as there can be, each in a row of its own."""
    shortest = layout.impression_header + len(layout.multi) - layout.num_context_slots
    most = int(rows.ends[-1]) // shortest + 1
    return RowPlan(
        context=np.empty(most, np.int64),
        key=np.empty(most, np.uint64),
        first=np.empty(most + 1, np.int64),
        at=np.empty(most, np.int64),
        orphans=np.empty((most, 2), np.int64),
        again=np.empty(len(rows.keys), np.int64),
    )


def _num_new_contexts(keys: np.ndarray, state: _Open) -> int:
    if not len(keys):
        return 0
    return int(np.count_nonzero(keys[1:] != keys[:-1])) + 1 - int(state.counted and int(keys[0]) == state.key)


def _quarantined(rows: _Rows, indexes: np.ndarray) -> Rejected:
    reasons = np.empty(len(indexes), np.int8)
    texts = []
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


def _impression_words(layout: UnpackLayout, rows: _Rows, at: np.ndarray, with_gaps: bool) -> np.ndarray:
    """The packed impressions at `at`, the last of the rows; end to end unless some were left out."""
    if not with_gaps:
        return rows.words[at[0] : rows.ends[-1]].copy()
    words = frozen(rows.words)
    return np.concatenate([words[p : unpack_kernel.impression_end(words, p, layout)] for p in at.tolist()])


def _repeated_impressions(rows: _Rows, plan: RowPlan, state: _Open) -> np.ndarray:
    """Positions of the impressions whose sample_id their context had before; ascending.

    Logs count sample_ids up, and then one comparison with the impression before is all it takes.
    """
    ids = _sample_ids(rows.words, plan.at)
    keys = np.repeat(plan.key, np.diff(plan.first))
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
