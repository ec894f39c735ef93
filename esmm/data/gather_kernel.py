"""Compiled loops over the columns of row groups, straight from Arrow's buffers.

A column is an address: a batch draws on many row groups, and numba takes no list of arrays whose number
varies. Whoever calls keeps the buffers alive. The kernels depend on their arguments only: numba caches
them.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
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


class Side(NamedTuple):
    """One side of a batch, its contexts or its impressions: where the values of its F fields lie.

    fields: int64 [P, F, 3], addresses of ids (int32), weights (float32; 0: all are 1) and bounds (int32;
    0: one id per owner) in each of P parts. first_row: int32 [F], added to a field's ids. normalised:
    bool [F], whether the weights of a bag are divided by their sum; a bag whose weights are all 0 stays so.
    part, first, length: int64 [S]; the owners are first[i] to first[i] + length[i] of part[i], i in turn.
    """

    fields: npt.NDArray[np.int64]
    first_row: npt.NDArray[np.int32]
    normalised: npt.NDArray[np.bool_]
    part: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def gather_bags(user, impression):
    """The bags of both sides, owner by owner, field by field: first the contexts', then the impressions'.

    Returns ids int32 [T], weights float32 [T] and offsets int32 [K + 1].
    """
    num_tokens = _count_tokens(user) + _count_tokens(impression)
    num_lists = _count_bags(user)
    ids = np.empty(num_tokens, np.int32)
    weights = np.empty(num_tokens, np.float32)
    offsets = np.empty(num_lists + _count_bags(impression) + 1, np.int32)
    offsets[0] = 0
    _gather_side(user, ids, weights, offsets)
    _gather_side(impression, ids, weights, offsets[num_lists:])
    return ids, weights, offsets


@njit(cache=True, nogil=True)
def _count_bags(side):
    return side.length.sum() * side.fields.shape[1]


@njit(cache=True, nogil=True)
def _count_tokens(side):
    total = 0
    for i in range(len(side.part)):
        for field in range(side.fields.shape[1]):
            low, high = _span(side.fields[side.part[i], field, 2], side.first[i], side.length[i])
            total += high - low
    return total


@njit(cache=True, nogil=True)
def _gather_side(side, ids, weights, offsets):
    """Fill in a side's bags; offsets[0] says where they begin in ids and weights."""
    num_fields = side.fields.shape[1]
    bag = 0
    for i in range(len(side.part)):
        sources = side.fields[side.part[i]]
        last = bag + side.length[i] * num_fields
        _write_offsets(sources, side.first[i], offsets[bag : last + 1])
        for field in range(num_fields):
            starts = offsets[bag + field : last : num_fields]
            how = side.first_row[field], side.normalised[field]
            _copy_bags(sources[field], side.first[i], starts, how, ids, weights)
        bag = last


@njit(cache=True, nogil=True)
def _write_offsets(sources, first, offsets):
    """Fill offsets after the first, with the bags of owners from `first` on."""
    num_fields = len(sources)
    for field in range(num_fields):
        ends = offsets[field + 1 :: num_fields]
        for i in range(len(ends)):
            low, high = _span(sources[field, 2], first + i, 1)
            ends[i] = high - low
    for bag in range(len(offsets) - 1):
        offsets[bag + 1] += offsets[bag]


@njit(cache=True, nogil=True)
def _span(bounds_address, first, count):
    """The values that owners first to first + count own."""
    if not bounds_address:
        return first, first + count
    bounds = _ints(bounds_address, first + count + 1)
    return np.int64(bounds[first]), np.int64(bounds[first + count])


@njit(cache=True, nogil=True)
def _copy_bags(source, first, starts, how, ids, weights):
    """One field's bags of owners from `first` on, each to its place among `starts`.

    how: what is added to the ids, and whether the weights are divided by their sum. One loop does it all,
    which the running sum keeps from being vectorised: for bags of a few tokens that costs more than it gives.
    """
    shift, normalised = how
    _, size = _span(source[2], first, len(starts))
    from_ids = _ints(source[0], size)
    from_weights = _floats(source[1], size)
    weighted = source[1] != 0
    for i in range(len(starts)):
        low, high = _span(source[2], first + i, 1)
        begin = np.int64(starts[i])
        total = 0.0
        for k in range(high - low):
            ids[begin + k] = from_ids[low + k] + shift
            weights[begin + k] = from_weights[low + k] if weighted else 1.0
            total += weights[begin + k]
        if normalised and total > 0.0:
            _divide(weights[begin : begin + high - low], total)


@njit(cache=True, nogil=True)
def _divide(weights, total):
    scale = np.float32(1.0 / max(total, SMALLEST_SUM))
    excess = np.float32(max(1.0, SMALLEST_SUM / total))
    for i in range(len(weights)):
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


@njit(cache=True, nogil=True)
def gather_numbers(numbers, parts, first, count):
    """float32 [M, N]: N columns of M owners, first[i] to first[i] + count[i] of parts[i], i in turn; numbers:
    int64 [P, N], addresses."""
    out = np.empty((count.sum(), numbers.shape[1]), np.float32)
    position = 0
    for i in range(len(parts)):
        for n in range(numbers.shape[1]):
            values = _floats(numbers[parts[i], n], first[i] + count[i])
            for k in range(count[i]):
                out[position + k, n] = values[first[i] + k]
        position += count[i]
    return out
