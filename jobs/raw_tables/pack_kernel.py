"""Columns of a table to packed rows, compiled: the way back of `jobs.sample_writer.unpack_kernel`."""

from typing import NamedTuple

import numpy as np
from numba import njit

compiled = njit(cache=True, nogil=True, error_model="numpy")


class Slots(NamedTuple):
    """The values of N rows in S slots, which are fields or texts (`jobs.raw_logs.packed_rows`); read-only.

    multi, weighted: bool [S]. values int32, weights float32: all slots end to end; slot s begins at
    value_begin[s] and weight_begin[s]. ends: int64 [S, N + 1]; row n of a multi-valued slot has the values
    ends[s, n] to ends[s, n + 1] of it, of any other slot value n.
    """

    multi: np.ndarray
    weighted: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    value_begin: np.ndarray
    weight_begin: np.ndarray
    ends: np.ndarray


@compiled
def row_starts(slots, header):
    """int64 [N + 1]: where each packed row begins. header: words before the slots."""
    num_rows = slots.ends.shape[1] - 1
    starts = np.empty(num_rows + 1, np.int64)
    starts[0] = 0
    for n in range(num_rows):
        size = header
        for s in range(len(slots.multi)):
            count = np.int64(1)
            if slots.multi[s]:
                count = slots.ends[s, n + 1] - slots.ends[s, n]
                size += 1
            size += 2 * count if slots.weighted[s] else count
        starts[n + 1] = starts[n] + size
    return starts


@compiled
def pack_rows(slots, header, starts, words, floats):
    """Fill words, int32, seen as float32 through `floats`. header: int32 [N, H], what precedes the slots."""
    for n in range(len(header)):
        at = starts[n]
        for h in range(header.shape[1]):
            words[at + h] = header[n, h]
        at += header.shape[1]
        for s in range(len(slots.multi)):
            first, count = np.int64(n), np.int64(1)
            if slots.multi[s]:
                first = slots.ends[s, n]
                count = slots.ends[s, n + 1] - first
                words[at] = count
                at += 1
            begin = slots.value_begin[s] + first
            for i in range(count):
                words[at + i] = slots.values[begin + i]
            at += count
            if slots.weighted[s]:
                begin = slots.weight_begin[s] + first
                for i in range(count):
                    floats[at + i] = slots.weights[begin + i]
                at += count


@compiled
def text_words(data, offsets):
    """Texts as words: the number of bytes, then these, padded with zeros; nothing where a text is empty.

    Text i is data[offsets[i] : offsets[i + 1]], uint8 and int32 [N + 1]. Returns words int32 and ends
    int64 [N + 1].
    """
    ends = np.empty(len(offsets), np.int64)
    ends[0] = 0
    for i in range(len(offsets) - 1):
        size = np.int64(offsets[i + 1]) - np.int64(offsets[i])
        ends[i + 1] = ends[i] + (1 + (size + 3) // 4 if size else 0)
    words = np.zeros(ends[-1], np.int32)
    as_bytes = words.view(np.uint8)
    for i in range(len(offsets) - 1):
        size = np.int64(offsets[i + 1]) - np.int64(offsets[i])
        if size:
            words[ends[i]] = size
            begin = 4 * (ends[i] + 1)
            for k in range(size):
                as_bytes[begin + k] = data[offsets[i] + k]
    return words, ends
