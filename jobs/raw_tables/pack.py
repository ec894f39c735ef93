"""Batches of a table as packed rows (`jobs.raw_logs.packed_rows`): pure functions on Arrow."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.raw_logs import packed_rows
from jobs.raw_logs.id_lookup import IdTable, no_table
from jobs.raw_logs.packed_rows import OFFSET_BITS, Slot, frozen
from jobs.raw_tables import hash_kernel, pack_kernel
from jobs.raw_tables.checks import find_reasons
from jobs.raw_tables.field_values import NO_WEIGHTS, FieldValues, field_values, hash_ids, text_buffers
from jobs.raw_tables.pack_kernel import Slots
from schemas.hashing import POSITIVE, SPARK_SEED
from schemas.samples import ACTION
from schemas.schema import Schema

Ints = npt.NDArray[Any]


class Values(NamedTuple):
    """What N rows have in one slot. values: int32 [T]; weights: float32 [T], none where the slot has none;
    ends: int64 [N + 1]; row n of a multi-valued slot has the values ends[n] to ends[n + 1]."""

    values: Ints
    weights: Ints
    ends: Ints


class Packer:
    """Packs the rows of one of the two tables. table: CONTEXTS or IMPRESSIONS of `packed_rows`; sources: by
    column of a batch, what the table calls it; id_table: of the fields with known ids."""

    def __init__(
        self,
        schema: Schema,
        table: int,
        hash_seed: int,
        sources: dict[str, str],
        id_table: IdTable | None = None,
    ) -> None:
        self._schema = schema
        self._table = table
        self._sources = sources
        self._slots = packed_rows.slots(schema)[table]
        self._ids = id_table or no_table(schema)
        self._salts = packed_rows.salts(schema, hash_seed)

    def rows(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The good rows of a batch, packed, then those that are set aside."""
        reasons = find_reasons(batch, self._schema)
        bad = reasons != 0
        good = batch.filter(pa.array(~bad)) if bad.any() else batch
        if good.num_rows:
            yield self._packed(dict(zip(good.schema.names, good.columns, strict=True)))
        if bad.any():
            yield self._set_aside(batch.filter(pa.array(bad)), reasons[bad])

    def _packed(self, columns: dict[str, pa.Array]) -> pa.RecordBatch:
        values = [self._values(slot, columns) for slot in self._slots]
        header = self._header(columns)
        slots = _end_to_end(self._slots, values, len(header))
        starts = pack_kernel.row_starts(slots, header.shape[1])
        words = np.empty(starts[-1], np.int32)
        pack_kernel.pack_rows(slots, header, starts, words, words.view(np.float32))
        keys = hash_ids(columns["key"], np.uint64(SPARK_SEED)).view(np.int64)
        if self._table == packed_rows.CONTEXTS:
            orders = _positive(hash_kernel.row_hashes(words, starts))
            return _without_repeats(_batch(keys, packed_rows.KIND_CONTEXT, orders, starts, words))
        return _batch(keys, packed_rows.KIND_IMPRESSIONS, _kept_ids(columns["sample"]), starts, words)

    def _header(self, columns: dict[str, pa.Array]) -> Ints:
        """int32 [N, H]: what precedes the slots."""
        if self._table == packed_rows.CONTEXTS:
            name = self._schema.user_id
            users = columns[f"ids_{self._schema.index[name]}"] if name else None
            if users is None or self._schema.user_id_type == "string":
                return np.full((len(columns["key"]), packed_rows.CONTEXT_HEADER), -1, np.int32)
            ids = users.fill_null(-1).to_numpy(zero_copy_only=False)
            return np.ascontiguousarray(ids).view(np.int32).reshape(len(ids), packed_rows.CONTEXT_HEADER)
        ids = _kept_ids(columns["sample"])
        header = np.zeros((len(ids), packed_rows.IMPRESSION_HEADER), np.int32)
        header[:, :2] = ids.view(np.int32).reshape(len(ids), 2)
        for bit, name in enumerate(("click", "conversion", ACTION)):
            if name in columns:
                header[:, 4] |= columns[name].to_numpy().astype(np.int32) << bit
        return header

    def _values(self, slot: Slot, columns: dict[str, pa.Array]) -> Values:
        if slot.is_text:
            return _text_values(columns[self._column_of_text(slot.name)])
        if slot.is_number:
            return _number_values(columns[slot.name])
        place = self._schema.index[slot.name]
        found = field_values(columns, place, self._schema.fields[place], self._salts[place])
        return Values(self._buckets(place, found), found.weights, found.ends)

    def _buckets(self, place: int, found: FieldValues) -> Ints:
        """int32 [T]: the bucket of each id of a field."""
        field = self._schema.fields[place]
        num_buckets = np.uint64(field.buckets)
        if place not in self._ids.fields:
            return cast(Ints, hash_kernel.to_buckets(found.hashes, found.present, num_buckets))
        slots = self._ids.known, self._ids.exact, self._ids.firsts[place], self._ids.masks[place]
        salt = self._salts[place]
        return cast(Ints, hash_kernel.look_up(found.hashes, found.present, num_buckets, salt, *slots))

    def _column_of_text(self, name: str) -> str:
        user = self._schema.index.get(self._schema.user_id or "", -1)
        return {"context_id": "key", "sample_id": "sample", "user_id": f"ids_{user}"}[name]

    def _set_aside(self, batch: pa.RecordBatch, reasons: Ints) -> pa.RecordBatch:
        """Rows as JSON, under the names of their table."""
        blobs = []
        for row, reason in zip(batch.to_pylist(), reasons.tolist(), strict=True):
            named = {self._sources[name]: _for_json(value) for name, value in row.items()}
            text = json.dumps(named, ensure_ascii=False).encode()
            head = np.array([reason, len(text)], np.int32).tobytes()
            blobs.append(np.frombuffer(head + text + bytes(-len(text) % 4), np.int32))
        starts = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).astype(np.int64)
        orders = np.full(len(blobs), self._table << OFFSET_BITS)
        keys = hash_kernel.row_hashes(np.concatenate(blobs), starts).view(np.int64)
        return _batch(keys, packed_rows.KIND_QUARANTINED, orders, starts, np.concatenate(blobs))


def _for_json(value: Any) -> Any:
    """A value as JSON can have it: numbers that it does not know, such as NaN, as their names."""
    if isinstance(value, list):
        return [_for_json(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text_values(texts: pa.Array) -> Values:
    as_text = texts if pa.types.is_string(texts.type) else texts.cast(pa.string())
    words, ends = pack_kernel.text_words(*text_buffers(as_text.fill_null("")))
    return Values(words, NO_WEIGHTS, ends)


def _number_values(numbers: pa.Array) -> Values:
    values = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
    ends = np.zeros(len(values) + 1, np.int64)
    return Values(values.astype(np.float32).view(np.int32), NO_WEIGHTS, ends)


def _end_to_end(slots: tuple[Slot, ...], values: list[Values], num_rows: int) -> Slots:
    """All slots in flat arrays."""
    sizes = np.array([[len(one.values), len(one.weights)] for one in values])
    begins = np.cumsum(sizes, axis=0) - sizes
    ends = np.array([one.ends for one in values]).reshape(len(values), num_rows + 1)
    arrays = (
        np.array([slot.multi for slot in slots]),
        np.array([slot.weighted for slot in slots]),
        np.concatenate([one.values for one in values]),
        np.concatenate([one.weights for one in values]).astype(np.float32),
        np.ascontiguousarray(begins[:, 0]),
        np.ascontiguousarray(begins[:, 1]),
        ends,
    )
    return Slots(*(frozen(array) for array in arrays))


def _positive(hashes: Ints) -> Ints:
    return (hashes & np.uint64(POSITIVE)).view(np.int64)


def _kept_ids(ids: pa.Array) -> Ints:
    """int64 [N]: the sample_id of each impression, of text half of its hash."""
    if pa.types.is_string(ids.type):
        return _positive(hash_ids(ids, np.uint64(SPARK_SEED)))
    return np.ascontiguousarray(ids.to_numpy())


def _batch(keys: Ints, kind: int, orders: Ints, starts: Ints, words: Ints) -> pa.RecordBatch:
    return packed_rows.record_batch(keys, np.full(len(keys), kind, np.int8), orders, starts, words)


def _without_repeats(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Without contexts that are the same as the one before them, as in a flat table."""
    keys, orders = (batch.column(name).to_numpy() for name in ("key", "order"))
    again = (keys[1:] == keys[:-1]) & (orders[1:] == orders[:-1])
    return batch.filter(pa.array(np.append(True, ~again))) if again.any() else batch
