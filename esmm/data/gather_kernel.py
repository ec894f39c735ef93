"""Compiled loops over the columns of row groups, straight from Arrow's buffers.

A column is an address: a batch draws on many row groups, and numba takes no list of arrays whose number
varies. Whoever calls keeps the buffers alive. The kernels depend on their arguments only: numba caches
them.
"""

import numba
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

# What `check_fields` finds: lists that are not as long as those beside them, lengths that do not add up to
# the number of values, an id that is no bucket, a weight that is negative or no number.
FINE, UNEQUAL_IDS, UNEQUAL_LENGTHS, UNEQUAL_WEIGHTS, BAD_LENGTHS, BAD_ID, BAD_WEIGHT = range(7)

# The columns of a field, as `check_fields` takes them: addresses, 0 where there is none.
IDS, ID_OFFSETS, LENGTHS, LENGTH_OFFSETS, WEIGHTS, WEIGHT_OFFSETS = range(6)

SMALLEST_SUM = 2.0**-126  # the inverse of a smaller one is no float32


@intrinsic
def _pointer(typing_context, address):
    """An address (int64) as a pointer, for `numba.carray`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@njit(cache=True, nogil=True)
def _ints(address, size):
    return numba.carray(_pointer(address), size, np.int32)


@njit(cache=True, nogil=True)
def _floats(address, size):
    return numba.carray(_pointer(address), size, np.float32)


@njit(cache=True, nogil=True)
def _bytes(address, size):
    return numba.carray(_pointer(address), size, np.int8)


@njit(cache=True, nogil=True)
def _equal(first, second):
    differences = 0
    for i in range(len(first)):
        differences += first[i] != second[i]
    return differences == 0


@njit(cache=True, nogil=True)
def check_fields(columns, num_buckets, per_impression, starts, bounds):
    """Do the columns of the fields fit each other, and their values the buckets?

    columns: int64 [F, 6], see IDS and so on. num_buckets: int64 [F]. per_impression: bool [F].
    starts: int32 [R + 1], row r owns impressions starts[r] to starts[r + 1]. bounds: int32 [M, I + 1],
    filled for the M fields with lengths: impression i owns values bounds[m, i] to bounds[m, i + 1].

    Returns what was found, in which field, and the id or weight that is wrong.
    """
    number = -1
    for field in range(len(columns)):
        column = columns[field]
        number += column[LENGTHS] != 0
        found = _check_lists(column, per_impression[field], starts, bounds[number])
        if found != FINE:
            return found, field, 0.0
        num_values = len(starts) - 1
        if column[ID_OFFSETS]:
            num_values = _ints(column[ID_OFFSETS], len(starts))[-1]
        found, value = _check_values(column, num_values, num_buckets[field])
        if found != FINE:
            return found, field, value
    return FINE, 0, 0.0


@njit(cache=True, nogil=True)
def _check_lists(column, per_impression, starts, bounds):
    """The lengths of a field's lists: those of impressions against `starts`, weights against ids."""
    if not column[ID_OFFSETS]:
        return FINE
    offsets = _ints(column[ID_OFFSETS], len(starts))
    if column[LENGTHS]:
        if not _equal(_ints(column[LENGTH_OFFSETS], len(starts)), starts):
            return UNEQUAL_LENGTHS
        if not _add_up(_ints(column[LENGTHS], starts[-1]), starts, offsets, bounds):
            return BAD_LENGTHS
    elif per_impression and not _equal(offsets, starts):
        return UNEQUAL_IDS
    if column[WEIGHTS] and not _equal(_ints(column[WEIGHT_OFFSETS], len(starts)), offsets):
        return UNEQUAL_WEIGHTS
    return FINE


@njit(cache=True, nogil=True)
def _add_up(lengths, starts, offsets, bounds):
    """Fill bounds with the running total of the lengths; False where they do not lead to `offsets`."""
    total = 0
    bounds[0] = 0
    for row in range(len(starts) - 1):
        for i in range(starts[row], starts[row + 1]):
            if lengths[i] < 0:
                return False
            total += lengths[i]
            bounds[i + 1] = total
        if total != offsets[row + 1]:
            return False
    return True


@njit(cache=True, nogil=True)
def _check_values(column, num_values, num_buckets):
    ids = _ints(column[IDS], num_values)
    low = 0
    high = 0
    for i in range(num_values):
        low = min(low, ids[i])
        high = max(high, ids[i])
    if low < 0 or high >= num_buckets:
        return BAD_ID, float(low if low < 0 else high)
    if column[WEIGHTS]:
        weights = _floats(column[WEIGHTS], num_values)
        for i in range(num_values):
            if not 0.0 <= weights[i] < np.inf:
                return BAD_WEIGHT, float(weights[i])
    return FINE, 0.0


@njit(cache=True, nogil=True)
def gather_bags(fields, parts, first, count, first_row, normalised):
    """Bags of the fields' values, of owners first[i] to first[i] + count[i] of part parts[i], i in turn.

    fields: int64 [P, F, 3], addresses of ids (int32), weights (float32; 0: all are 1) and bounds (int32;
    0: one id per owner) in each part. first_row: int32 [F], added to a field's ids. normalised: bool [F],
    whether the weights of a bag are divided by their sum; a bag whose weights are all 0 stays so.

    Returns ids int32 [T], weights float32 [T] and offsets int32 [F*N + 1], field-major.
    """
    num_fields = fields.shape[1]
    num_owners = count.sum()
    total = 0
    for field in range(num_fields):
        for i in range(len(parts)):
            low, high = _span(fields[parts[i], field, 2], first[i], count[i])
            total += high - low
    ids = np.empty(total, np.int32)
    weights = np.empty(total, np.float32)
    offsets = np.empty(num_fields * num_owners + 1, np.int32)
    offsets[0] = 0
    bag = 0
    begin = 0
    for field in range(num_fields):
        for i in range(len(parts)):
            source = fields[parts[i], field]
            low, high = _span(source[2], first[i], count[i])
            end = begin + high - low
            _copy_ids(source[0], low, first_row[field], ids[begin:end])
            _copy_weights(source[1], low, weights[begin:end])
            bounds = offsets[bag + 1 : bag + count[i] + 1]
            _copy_bounds(source[2], first[i], begin - low, begin, bounds)
            bag = bag + count[i]
            begin = end
        if normalised[field]:
            normalise_bags(weights, offsets[bag - num_owners : bag + 1])
    return ids, weights, offsets


@njit(cache=True, nogil=True)
def _span(bounds_address, first, count):
    """The values that owners first to first + count own."""
    if not bounds_address:
        return first, first + count
    bounds = _ints(bounds_address, first + count + 1)
    return np.int64(bounds[first]), np.int64(bounds[first + count])


@njit(cache=True, nogil=True)
def _copy_ids(address, low, shift, out):
    ids = _ints(address, low + len(out))
    for k in range(len(out)):
        out[k] = ids[low + k] + shift


@njit(cache=True, nogil=True)
def _copy_weights(address, low, out):
    if not address:
        out[:] = 1.0
        return
    weights = _floats(address, low + len(out))
    for k in range(len(out)):
        out[k] = weights[low + k]


@njit(cache=True, nogil=True)
def _copy_bounds(address, first, shift, begin, out):
    if not address:
        for k in range(len(out)):
            out[k] = begin + k + 1
        return
    bounds = _ints(address, first + len(out) + 1)
    for k in range(len(out)):
        out[k] = bounds[first + k + 1] + shift


@njit(cache=True, nogil=True)
def normalise_bags(weights, offsets):
    """Divide the weights of each bag by their sum, in place; a bag whose weights are all zero stays so."""
    for bag in range(len(offsets) - 1):
        total = 0.0
        for i in range(offsets[bag], offsets[bag + 1]):
            total += weights[i]
        if total > 0.0:
            scale = np.float32(1.0 / max(total, SMALLEST_SUM))
            excess = np.float32(max(1.0, SMALLEST_SUM / total))
            for i in range(offsets[bag], offsets[bag + 1]):
                weights[i] = weights[i] * scale * excess


@njit(cache=True, nogil=True)
def gather_labels(labels, parts, first, count):
    """float32 [N]: int8 values of owners first[i] to first[i] + count[i]; labels: int64 [P], addresses."""
    out = np.empty(count.sum(), np.float32)
    position = 0
    for i in range(len(parts)):
        values = _bytes(labels[parts[i]], first[i] + count[i])
        for k in range(count[i]):
            out[position + k] = values[first[i] + k]
        position += count[i]
    return out
