"""The compiled unpacker: packed rows, sorted by (key, kind, order), into the columns of the samples.

`plan_rows` walks the packed rows once and decides which impressions make up which sample row;
`count_values` and `fill_columns` then size and fill flat column buffers, all fields alike.
"""

import numpy as np
from numba import njit

from jobs.packed import (
    CONTEXT_HEADER,
    FIELD_MULTI,
    FIELD_WEIGHTED,
    IMPRESSION_HEADER,
    KIND_CONTEXT,
    NUM_FIELDS,
    NUM_USER_FIELDS,
)


@njit(cache=True, nogil=True)
def impression_end(words, position):
    """The position behind the packed impression that begins at `position`."""
    position += IMPRESSION_HEADER
    for field in range(NUM_USER_FIELDS, NUM_FIELDS):
        count = 1
        if FIELD_MULTI[field]:
            count = words[position]
            position += 1
        position += 2 * count if FIELD_WEIGHTED[field] else count
    return position


@njit(cache=True, nogil=True)
def plan_rows(
    words, keys, kinds, begins, ends, max_impressions, row_context, row_key, row_first, at, orphans, again
):
    """Which impressions make up which sample row.

    Row i of the input is words[begins[i] : ends[i]]. Output, each array large enough for the worst case:
    row_context, row_key, row_first: per sample row its context's position, its key, its first impression;
    at: position of each impression; orphans [n, 2]: input row and position of each impression
    that has no common record; again: input rows that are a second common record.
    Returns the numbers of sample rows, impressions, orphans and repeated records.
    """
    num_rows, num_impressions, num_orphans, num_again = 0, 0, 0, 0
    context = np.int64(-1)
    fresh = True
    for i in range(len(keys)):
        if i == 0 or keys[i] != keys[i - 1]:
            context, fresh = np.int64(-1), True
        if kinds[i] == KIND_CONTEXT:
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
            else:
                if fresh or num_impressions - row_first[num_rows - 1] == max_impressions:
                    row_context[num_rows] = context
                    row_key[num_rows] = keys[i]
                    row_first[num_rows] = num_impressions
                    num_rows += 1
                    fresh = False
                at[num_impressions] = position
                num_impressions += 1
            position = impression_end(words, position)
    row_first[num_rows] = num_impressions
    return num_rows, num_impressions, num_orphans, num_again


@njit(cache=True, nogil=True)
def _count_fields(words, position, first, last, totals):
    for field in range(first, last):
        count = 1
        if FIELD_MULTI[field]:
            count = words[position]
            position += 1
        totals[field] += count
        position += 2 * count if FIELD_WEIGHTED[field] else count


@njit(cache=True, nogil=True)
def count_values(words, row_context, at):
    """int64 [23]: how many values each field's column will hold."""
    totals = np.zeros(NUM_FIELDS, np.int64)
    for position in row_context:
        _count_fields(words, position + CONTEXT_HEADER, 0, NUM_USER_FIELDS, totals)
    for position in at:
        _count_fields(words, position + IMPRESSION_HEADER, NUM_USER_FIELDS, NUM_FIELDS, totals)
    return totals


@njit(cache=True, nogil=True)
def _copy_fields(words, floats, position, first, last, ids, weights, begin, weight_begin, cursor):
    """Append one packed record's fields to their columns."""
    for field in range(first, last):
        count = 1
        if FIELD_MULTI[field]:
            count = words[position]
            position += 1
        to = begin[field] + cursor[field]
        for j in range(count):
            ids[to + j] = words[position + j]
        position += count
        if FIELD_WEIGHTED[field]:
            to = weight_begin[field] + cursor[field]
            for j in range(count):
                weights[to + j] = floats[position + j]
            position += count
        cursor[field] += count


@njit(cache=True, nogil=True)
def _read_int64(words, position):
    low = np.int64(words[position]) & np.int64(0xFFFFFFFF)
    return low | (np.int64(words[position + 1]) << np.int64(32))


@njit(cache=True, nogil=True)
def fill_columns(
    words, floats, row_context, row_first, at,
    begin, weight_begin, ids, weights, row_ends, lengths,
    user_id, sample_id, click, conversion,
):  # fmt: skip
    """Fill the column buffers.

    ids int32, weights float32: all columns end to end; field f begins at begin[f], weight_begin[f].
    row_ends int32 [23, R + 1]: list offsets of the multi-valued fields. lengths int32 [23, K]: values
    per impression. user_id int64 [R]; sample_id int64, click, conversion int8 [K].
    """
    cursor = np.zeros(NUM_FIELDS, np.int64)
    row_ends[:, 0] = 0
    for row in range(len(row_context)):
        position = row_context[row]
        user_id[row] = _read_int64(words, position)
        _copy_fields(
            words,
            floats,
            position + CONTEXT_HEADER,
            0,
            NUM_USER_FIELDS,
            ids,
            weights,
            begin,
            weight_begin,
            cursor,
        )
        for k in range(row_first[row], row_first[row + 1]):
            position = at[k]
            sample_id[k] = _read_int64(words, position)
            click[k] = words[position + 4] & 1
            conversion[k] = words[position + 4] >> 1
            for field in range(NUM_USER_FIELDS, NUM_FIELDS):
                lengths[field, k] = -cursor[field]
            _copy_fields(
                words, floats, position + IMPRESSION_HEADER, NUM_USER_FIELDS, NUM_FIELDS,
                ids, weights, begin, weight_begin, cursor,
            )  # fmt: skip
            for field in range(NUM_USER_FIELDS, NUM_FIELDS):
                lengths[field, k] += cursor[field]
        for field in range(NUM_FIELDS):
            row_ends[field, row + 1] = cursor[field]
