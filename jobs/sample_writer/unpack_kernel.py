"""The compiled unpacker: packed rows, sorted by (key, kind, order), into the columns of the samples.

`plan_rows` walks the packed rows once and decides which impressions make up which sample row;
`count_values` and `fill_columns` then size and fill flat column buffers, all fields alike.

numba compiles anew only where this file changed, so whatever depends on the fields is an argument.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class UnpackLayout(NamedTuple):
    """What the kernels must know of `jobs.raw_logs.packed_rows`.

    multi, weighted, is_text: bool [S], read-only; the first num_context_slots are those of contexts.
    only_other: whether a further record of a context counts only where it is another one than that before it.
    """

    multi: np.ndarray
    weighted: np.ndarray
    is_text: np.ndarray
    num_context_slots: int
    only_other: bool
    context_header: int
    impression_header: int
    kind_context: int


class PackedRows(NamedTuple):
    """Packed rows by (key, kind, order), all read-only: row i is words[begins[i] : ends[i]].

    words: int32. keys: uint64 [n]. kinds: int8 [n]. begins, ends: int64 [n].
    """

    words: np.ndarray
    keys: np.ndarray
    kinds: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


class RowPlan(NamedTuple):
    """Which of K impressions make up which of R sample rows.

    context: int64 [R], the positions of their contexts. key: uint64 [R]. first: int64 [R + 1], where their
    impressions begin in `at`. at: int64 [K], the position of each impression. orphans: int64 [n, 2], packed
    row and position of each impression that has no common record. again: int64, packed rows that are a
    second common record.
    """

    context: np.ndarray
    key: np.ndarray
    first: np.ndarray
    at: np.ndarray
    orphans: np.ndarray
    again: np.ndarray


class ColumnBuffers(NamedTuple):
    """The columns of R sample rows with K impressions.

    ids int32, weights float32: all columns end to end; field f begins at begin[f], weight_begin[f].
    row_ends: int32 [F, R + 1], list offsets of the multi-valued fields. lengths: int32 [F, K], values per
    impression. user_id: int64 [R]. sample_id: int64 [K]. click, conversion, action: int8 [K].
    """

    begin: np.ndarray
    weight_begin: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    row_ends: np.ndarray
    lengths: np.ndarray
    user_id: np.ndarray
    sample_id: np.ndarray
    click: np.ndarray
    conversion: np.ndarray
    action: np.ndarray


compiled = njit(cache=True, nogil=True, error_model="numpy")
inlined = njit(nogil=True, error_model="numpy", forceinline=True)  # a call would cost more than most do


@compiled
def impression_end(words, position, layout):
    """The position behind the packed impression that begins at `position`."""
    position += layout.impression_header
    for field in range(layout.num_context_slots, len(layout.multi)):
        count = 1
        if layout.multi[field]:
            count = words[position]
            position += 1
        position += 2 * count if layout.weighted[field] else count
    return position


@compiled
def _same(rows, i, k):
    """Are two packed rows the same?"""
    size = rows.ends[i] - rows.begins[i]
    if rows.ends[k] - rows.begins[k] != size:
        return False
    differing = 0
    for at in range(size):
        differing += rows.words[rows.begins[i] + at] != rows.words[rows.begins[k] + at]
    return differing == 0


@compiled
def plan_rows(layout, rows, max_impressions, dropped, plan):
    """Fill a plan whose arrays are large enough for the worst case.

    dropped: positions of impressions to leave out, ascending.
    Returns the numbers of sample rows, impressions, orphans and repeated records.
    """
    num_rows = 0
    num_impressions = 0
    num_orphans = 0
    num_again = 0
    num_dropped = 0
    context = np.int64(-1)
    fresh = True
    for i in range(len(rows.keys)):
        if i == 0 or rows.keys[i] != rows.keys[i - 1]:
            context = np.int64(-1)
            fresh = True
        if rows.kinds[i] == layout.kind_context:
            if context < 0:
                context = rows.begins[i]
            elif not (layout.only_other and _same(rows, i - 1, i)):
                plan.again[num_again] = i
                num_again += 1
            continue
        position = rows.begins[i]
        while position < rows.ends[i]:
            if context < 0:
                plan.orphans[num_orphans, 0] = i
                plan.orphans[num_orphans, 1] = position
                num_orphans += 1
            elif num_dropped < len(dropped) and dropped[num_dropped] == position:
                num_dropped += 1
            else:
                if fresh or num_impressions - plan.first[num_rows - 1] == max_impressions:
                    plan.context[num_rows] = context
                    plan.key[num_rows] = rows.keys[i]
                    plan.first[num_rows] = num_impressions
                    num_rows += 1
                    fresh = False
                plan.at[num_impressions] = position
                num_impressions += 1
            position = impression_end(rows.words, position, layout)
    plan.first[num_rows] = num_impressions
    return num_rows, num_impressions, num_orphans, num_again


@inlined
def _count_fields(layout, words, position, first, last, totals):
    """Add how many values the fields first..last-1 of one packed record have."""
    for field in range(first, last):
        count = 1
        if layout.multi[field]:
            count = words[position]
            position += 1
        totals[field] += count
        position += 2 * count if layout.weighted[field] else count


@compiled
def count_values(layout, words, plan):
    """int64 [F]: how many values each field's column will hold."""
    first = layout.num_context_slots
    last = len(layout.multi)
    totals = np.zeros(last, np.int64)
    for position in plan.context:
        _count_fields(layout, words, position + layout.context_header, 0, first, totals)
    for position in plan.at:
        _count_fields(layout, words, position + layout.impression_header, first, last, totals)
    return totals


@inlined
def _copy_fields(layout, words, floats, position, first, last, columns, cursor):
    """Append the fields first..last-1 of one packed record to their columns. cursor [F]: values so far."""
    for field in range(first, last):
        count = 1
        if layout.multi[field]:
            count = words[position]
            position += 1
        to = columns.begin[field] + cursor[field]
        for j in range(count):
            columns.ids[to + j] = words[position + j]
        position += count
        if layout.weighted[field]:
            to = columns.weight_begin[field] + cursor[field]
            for j in range(count):
                columns.weights[to + j] = floats[position + j]
            position += count
        cursor[field] += count


@compiled
def sort_by_id(ids, bits, other_ids, other_bits, descending):
    """Sort the values of one list by id, weights (as `bits`) along with them.

    Radix sort, a byte at a time: a third of the time of a comparison sort for some hundred values. The
    `other` arrays are scratch space of the same length.
    """
    count = len(ids)
    highest = np.int32(0)
    for i in range(count):
        highest = max(highest, ids[i])
    begins = np.empty(257, np.int64)
    from_ids = ids
    from_bits = bits
    to_ids = other_ids
    to_bits = other_bits
    shift = np.int32(0)
    moves = 0
    while highest >> shift:
        begins[:] = 0
        for i in range(count):
            begins[np.uint64((from_ids[i] >> shift) & 255) + np.uint64(1)] += 1
        for digit in range(256):
            begins[digit + 1] += begins[digit]
        for i in range(count):
            byte = np.uint64((from_ids[i] >> shift) & 255)
            to = begins[byte]
            begins[byte] = to + 1
            to_ids[to] = from_ids[i]
            to_bits[to] = from_bits[i]
        from_ids, from_bits, to_ids, to_bits = to_ids, to_bits, from_ids, from_bits
        shift += np.int32(8)
        moves += 1
    if moves % 2:
        ids[:] = other_ids
        bits[:] = other_bits
    if descending:
        for i in range(count // 2):
            ids[i], ids[count - 1 - i] = ids[count - 1 - i], ids[i]
            bits[i], bits[count - 1 - i] = bits[count - 1 - i], bits[i]


@inlined
def _read_int64(words, position):
    low = np.int64(words[position]) & np.int64(0xFFFFFFFF)
    return low | (np.int64(words[position + 1]) << np.int64(32))


@inlined
def _sort_user_lists(layout, columns, row, cursor, scratch, descending):
    """Sort the lists of the user fields that one row has just got. scratch: int32 [3, n]; a list without
    weights takes the third part along."""
    bits = columns.weights.view(np.int32)
    for field in range(layout.num_context_slots):
        if layout.multi[field] and not layout.is_text[field]:
            count = cursor[field] - columns.row_ends[field, row]
            to = columns.begin[field] + columns.row_ends[field, row]
            weight_to = columns.weight_begin[field] + columns.row_ends[field, row]
            along = bits[weight_to : weight_to + count] if layout.weighted[field] else scratch[2, :count]
            ids = columns.ids[to : to + count]
            sort_by_id(ids, along, scratch[0, :count], scratch[1, :count], descending)


@inlined
def _fill_impression(layout, words, floats, position, k, columns, cursor):
    """Fill in impression k, which is packed at `position`."""
    first = layout.num_context_slots
    last = len(layout.multi)
    columns.sample_id[k] = _read_int64(words, position)
    columns.click[k] = words[position + 4] & 1
    columns.conversion[k] = words[position + 4] >> 1 & 1
    columns.action[k] = words[position + 4] >> 2
    for field in range(first, last):
        columns.lengths[field, k] = -cursor[field]
    _copy_fields(layout, words, floats, position + layout.impression_header, first, last, columns, cursor)
    for field in range(first, last):
        columns.lengths[field, k] += cursor[field]


@compiled
def fill_columns(layout, words, plan, first_row, columns):
    """Fill the buffers of the planned rows.

    The lists of users, whose order in the logs means nothing, are sorted, upwards and downwards in turn
    (first_row: how many rows came before): small differences take few bytes, from row to row as well.
    """
    floats = words.view(np.float32)
    first = layout.num_context_slots
    last = len(layout.multi)
    cursor = np.zeros(last, np.int64)
    scratch = np.empty((3, len(columns.ids)), np.int32)
    columns.row_ends[:, 0] = 0
    for row in range(len(plan.context)):
        position = plan.context[row]
        columns.user_id[row] = _read_int64(words, position)
        _copy_fields(layout, words, floats, position + layout.context_header, 0, first, columns, cursor)
        descending = (first_row + row) % 2 == 1
        _sort_user_lists(layout, columns, row, cursor, scratch, descending)
        for k in range(plan.first[row], plan.first[row + 1]):
            _fill_impression(layout, words, floats, plan.at[k], k, columns, cursor)
        for field in range(last):
            columns.row_ends[field, row + 1] = cursor[field]


@compiled
def texts(words, ends):
    """Texts of words: text i is words[ends[i] : ends[i + 1]], as `jobs.raw_logs.packed_rows` has it.

    Returns offsets int32 [N + 1] and data uint8.
    """
    offsets = np.zeros(len(ends), np.int32)
    for i in range(len(ends) - 1):
        offsets[i + 1] = offsets[i] + (words[ends[i]] if ends[i] < ends[i + 1] else 0)
    as_bytes = words.view(np.uint8)
    data = np.empty(offsets[-1], np.uint8)
    for i in range(len(ends) - 1):
        begin = 4 * (np.int64(ends[i]) + 1)
        for k in range(offsets[i + 1] - offsets[i]):
            data[offsets[i] + k] = as_bytes[begin + k]
    return offsets, data
