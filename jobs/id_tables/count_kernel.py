"""The compiled counter of ids: an open-addressing table of (field, raw id) with counts.

A slot is two int64: the raw id, and `count << FIELD_BITS | field`, 0 in a free slot.
"""

import numpy as np
from numba import njit

FIELD_BITS = 15  # as many as a Spark smallint has without its sign; 48 bits are left for the count
FIELD_MASK = (1 << FIELD_BITS) - 1

MIX_ID, MIX_FIELD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd, bits half set
ONE, WORD = np.int64(1) << FIELD_BITS, np.int64(0xFFFFFFFF)


@njit(cache=True, nogil=True, error_model="numpy")
def count_ids(tokens, begin, slots, shift, used, most):
    """Count tokens[begin:] (int32 [n, 3]: field, low and high word of the raw id) into slots [2**k, 2].

    shift: 64 - k. used: slots in use. Stops where a slot more than `most` would be needed; returns the
    token it stopped at (len(tokens) at the end) and the slots in use.
    """
    last = len(slots) - 1
    for i in range(begin, len(tokens)):
        field = np.int64(tokens[i, 0])
        feature_id = (np.int64(tokens[i, 2]) << np.int64(32)) | (np.int64(tokens[i, 1]) & WORD)
        mixed = np.uint64(feature_id) * MIX_ID + np.uint64(field) * MIX_FIELD
        slot = np.int64((mixed ^ (mixed >> np.uint64(32))) * MIX_ID >> shift)
        while slots[slot, 1] != 0 and (slots[slot, 0] != feature_id or slots[slot, 1] & FIELD_MASK != field):
            slot = (slot + 1) & last
        if slots[slot, 1] == 0:
            if used == most:
                return i, used
            slots[slot, 0] = feature_id
            slots[slot, 1] = field
            used += 1
        slots[slot, 1] += ONE
    return len(tokens), used
