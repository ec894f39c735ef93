"""Compiled loops over the columns of row groups, straight from Arrow's buffers.

A column is an address: a batch draws on many row groups at once, and numba takes neither a list of
arrays of varying number nor a reference to them. Whoever calls keeps the buffers alive. The kernels
depend on their arguments only: numba caches them.
"""

import numba
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

# What `check_field` may find.
FINE, BAD_WEIGHT_LISTS, BAD_LENGTH_LISTS, BAD_LENGTHS, BAD_ID, BAD_WEIGHT = range(6)


@intrinsic
def _pointer(typing_context, address):
    """An address (int64) as a pointer, for `numba.carray`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@njit(cache=True, nogil=True)
def _ints(address, size):
    return numba.carray(_pointer(address), size, dtype=np.int32)


@njit(cache=True, nogil=True)
def _floats(address, size):
    return numba.carray(_pointer(address), size, dtype=np.float32)


@njit(cache=True, nogil=True)
def _bytes(address, size):
    return numba.carray(_pointer(address), size, dtype=np.int8)
