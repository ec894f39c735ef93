"""The compiled unpacker: packed rows, sorted by (key, kind, order), into the columns of the samples.

`plan_rows` walks the packed rows once and decides which impressions make up which sample row;
`count_values` and `fill_columns` then size and fill flat column buffers, all fields alike.

numba compiles anew only where this file changed, so whatever depends on the fields is an argument.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class UnpackLayout(NamedTuple):
    """What the kernels must know of the fields and of `jobs.raw_logs.packed_rows`.

    multi, weighted: bool [23], read-only. The first num_user_fields are user fields.
    """

    multi: np.ndarray
    weighted: np.ndarray
    num_user_fields: int
    context_header: int
    impression_header: int
    kind_context: int


compiled = njit(cache=True, nogil=True, error_model="numpy")


@compiled
def impression_end(words, position, layout):
    """The position behind the packed impression that begins at `position`."""
    position += layout.impression_header
    for field in range(layout.num_user_fields, len(layout.multi)):
        count = 1
        if layout.multi[field]:
            count = words[position]
            position += 1
        position += 2 * count if layout.weighted[field] else count
    return position


@compiled
def plan_rows(
    layout,
    words,
    keys,
    kinds,
    begins,
    ends,
    max_impressions,
    dropped,
    row_context,
    row_key,
    row_first,
    at,
    orphans,
    again,
):
    """Which impressions make up which sample row.

    Row i of the input is words[begins[i] : ends[i]]. dropped: positions of impressions to leave out,
    ascending. Output, each array large enough for the worst case:
    row_context, row_key, row_first: per sample row its context's position, its key, its first impression;
    at: position of each impression; orphans [n, 2]: input row and position of each impression
    that has no common record; again: input rows that are a second common record.
    Returns the numbers of sample rows, impressions, orphans and repeated records.
    """
    num_rows, num_impressions, num_orphans, num_again, num_dropped = 0, 0, 0, 0, 0
    context = np.int64(-1)
    fresh = True
    for i in range(len(keys)):
        if i == 0 or keys[i] != keys[i - 1]:
            context, fresh = np.int64(-1), True
        if kinds[i] == layout.kind_context:
            if context < 0:
                context = begins[i]
            else:
                again[num_again] = i
                num_again += 1
            continue
        position = begins[i]
        while position < ends[i]:
            if context < 0:
                orphans[num_orphans, 0], orphans[num_orphans, 1] = i, position
                num_orphans += 1
            elif num_dropped < len(dropped) and dropped[num_dropped] == position:
                num_dropped += 1
            else:
                if fresh or num_impressions - row_first[num_rows - 1] == max_impressions:
                    row_context[num_rows] = context
                    row_key[num_rows] = keys[i]
                    row_first[num_rows] = num_impressions
                    num_rows += 1
                    fresh = False
                at[num_impressions] = position
                num_impressions += 1
            position = impression_end(words, position, layout)
    row_first[num_rows] = num_impressions
    return num_rows, num_impressions, num_orphans, num_again


@compiled
def _count_fields(layout, words, position, first, last, totals):
    for field in range(first, last):
        count = 1
        if layout.multi[field]:
            count = words[position]
            position += 1
        totals[field] += count
        position += 2 * count if layout.weighted[field] else count


@compiled
def count_values(layout, words, row_context, at):
    """int64 [23]: how many values each field's column will hold."""
    totals = np.zeros(len(layout.multi), np.int64)
    for position in row_context:
        _count_fields(layout, words, position + layout.context_header, 0, layout.num_user_fields, totals)
    for position in at:
        _count_fields(
            layout,
            words,
            position + layout.impression_header,
            layout.num_user_fields,
            len(layout.multi),
            totals,
        )
    return totals


@compiled
def _copy_fields(layout, words, floats, position, first, last, ids, weights, begin, weight_begin, cursor):
    """Append one packed record's fields to their columns."""
    for field in range(first, last):
        count = 1
        if layout.multi[field]:
            count = words[position]
            position += 1
        to = begin[field] + cursor[field]
        for j in range(count):
            ids[to + j] = words[position + j]
        position += count
        if layout.weighted[field]:
            to = weight_begin[field] + cursor[field]
            for j in range(count):
                weights[to + j] = floats[position + j]
            position += count
        cursor[field] += count


@compiled
def sort_by_id(ids, bits, other_ids, other_bits, descending):
    """Sort the values of one list by id, weights (as `bits`) along with them.

    Radix sort, a byte at a time: a third of the time of a comparison sort for some hundred values. The
    `other` arrays are scratch space of the same length.
    """
    count, shift, moves = len(ids), np.int32(0), 0
    highest = np.int32(0)
    for i in range(count):
        highest = max(highest, ids[i])
    begins = np.empty(257, np.int64)
    from_ids, from_bits, to_ids, to_bits = ids, bits, other_ids, other_bits
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
            to_ids[to], to_bits[to] = from_ids[i], from_bits[i]
        from_ids, from_bits, to_ids, to_bits = to_ids, to_bits, from_ids, from_bits
        shift += np.int32(8)
        moves += 1
    if moves % 2:
        ids[:], bits[:] = other_ids, other_bits
    if descending:
        for i in range(count // 2):
            ids[i], ids[count - 1 - i] = ids[count - 1 - i], ids[i]
            bits[i], bits[count - 1 - i] = bits[count - 1 - i], bits[i]


@compiled
def _read_int64(words, position):
    low = np.int64(words[position]) & np.int64(0xFFFFFFFF)
    return low | (np.int64(words[position + 1]) << np.int64(32))


@compiled
def fill_columns(
    layout, words, floats, first_row, row_context, row_first, at,
    begin, weight_begin, ids, weights, row_ends, lengths,
    user_id, sample_id, click, conversion,
):  # fmt: skip
    """Fill the column buffers.

    ids int32, weights float32: all columns end to end; field f begins at begin[f], weight_begin[f].
    row_ends int32 [23, R + 1]: list offsets of the multi-valued fields. lengths int32 [23, K]: values
    per impression. user_id int64 [R]; sample_id int64, click, conversion int8 [K].
    The lists of users, whose order in the logs means nothing, are sorted, upwards and downwards in turn
    (first_row: how many rows came before): small differences take few bytes, from row to row as well.
    """
    first, last = layout.num_user_fields, len(layout.multi)
    cursor = np.zeros(last, np.int64)
    bits = weights.view(np.int32)
    other_ids, other_bits = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)
    row_ends[:, 0] = 0
    for row in range(len(row_context)):
        position = row_context[row]
        user_id[row] = _read_int64(words, position)
        _copy_fields(
            layout, words, floats, position + layout.context_header, 0, first,
            ids, weights, begin, weight_begin, cursor,
        )  # fmt: skip
        for field in range(first):
            if layout.multi[field]:
                count = cursor[field] - row_ends[field, row]
                to, weight_to = (
                    begin[field] + row_ends[field, row],
                    weight_begin[field] + row_ends[field, row],
                )
                sort_by_id(
                    ids[to : to + count], bits[weight_to : weight_to + count],
                    other_ids[:count], other_bits[:count], (first_row + row) % 2 == 1,
                )  # fmt: skip
        for k in range(row_first[row], row_first[row + 1]):
            position = at[k]
            sample_id[k] = _read_int64(words, position)
            click[k] = words[position + 4] & 1
            conversion[k] = words[position + 4] >> 1
            for field in range(first, last):
                lengths[field, k] = -cursor[field]
            _copy_fields(
                layout, words, floats, position + layout.impression_header, first, last,
                ids, weights, begin, weight_begin, cursor,
            )  # fmt: skip
            for field in range(first, last):
                lengths[field, k] += cursor[field]
        for field in range(last):
            row_ends[field, row + 1] = cursor[field]
