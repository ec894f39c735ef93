"""Raw ids of tables, compiled: `schemas.hashing` for whole columns.

Numbers are uint64 throughout: mixing in an int64 would silently turn them into floats. numba compiles anew
only where this file changed: what hashes stands here, and calls no kernel of another file.
"""

import numpy as np
from numba import njit

from schemas import hashing

PRIME1 = np.uint64(hashing.PRIME1)
PRIME2 = np.uint64(hashing.PRIME2)
PRIME3 = np.uint64(hashing.PRIME3)
PRIME4 = np.uint64(hashing.PRIME4)
PRIME5 = np.uint64(hashing.PRIME5)
POSITIVE = np.uint64(hashing.POSITIVE)
ONE, TWO = np.uint64(1), np.uint64(2)
EIGHT = np.uint64(8)
ZERO, NINE, MINUS = np.uint8(ord("0")), np.uint8(ord("9")), np.uint8(ord("-"))
MAX_DIGITS = 18
RARE = np.int32(hashing.RARE)
EMPTY = np.int64(-1)  # in a free slot of an id table: `jobs.raw_logs.parse_kernel`

compiled = njit(cache=True, nogil=True, error_model="numpy")
inlined = njit(nogil=True, error_model="numpy", forceinline=True)


@inlined
def _rotate(value, bits):
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inlined
def _round(acc, lane):
    return _rotate(acc + lane * PRIME2, 31) * PRIME1


@inlined
def _lane(data, begin, size):
    """`size` bytes at `begin` as one little-endian number."""
    lane = np.uint64(0)
    for i in range(size):
        lane |= np.uint64(data[begin + i]) << np.uint64(8 * i)
    return lane


@inlined
def _avalanche(acc):
    acc = (acc ^ (acc >> np.uint64(33))) * PRIME2
    acc = (acc ^ (acc >> np.uint64(29))) * PRIME3
    return acc ^ (acc >> np.uint64(32))


@inlined
def _of_number(number, salt):
    """XXH64 of a number's 8 bytes."""
    acc = salt + PRIME5 + EIGHT
    acc ^= _round(np.uint64(0), np.uint64(number))
    return _avalanche(_rotate(acc, 27) * PRIME1 + PRIME4)


@inlined
def _of_stripes(data, begin, end, salt):
    """What the whole stripes of 32 bytes come to."""
    first, second = salt + PRIME1 + PRIME2, salt + PRIME2
    third, fourth = salt, salt - PRIME1
    for at in range(begin, end - 31, 32):
        first = _round(first, _lane(data, at, 8))
        second = _round(second, _lane(data, at + 8, 8))
        third = _round(third, _lane(data, at + 16, 8))
        fourth = _round(fourth, _lane(data, at + 24, 8))
    acc = _rotate(first, 1) + _rotate(second, 7) + _rotate(third, 12) + _rotate(fourth, 18)
    for each in (first, second, third, fourth):
        acc = (acc ^ _round(np.uint64(0), each)) * PRIME1 + PRIME4
    return acc


@compiled
def of_bytes(data, begin, end, salt):
    """XXH64 of data[begin:end], uint8, as uint64; salt: uint64, the seed."""
    acc = _of_stripes(data, begin, end, salt) if end - begin >= 32 else salt + PRIME5
    acc += np.uint64(end - begin)
    at = begin + (end - begin) // 32 * 32
    while at + 8 <= end:
        acc = _rotate(acc ^ _round(np.uint64(0), _lane(data, at, 8)), 27) * PRIME1 + PRIME4
        at += 8
    if at + 4 <= end:
        acc = _rotate(acc ^ (_lane(data, at, 4) * PRIME1), 23) * PRIME2 + PRIME3
        at += 4
    while at < end:
        acc = _rotate(acc ^ (np.uint64(data[at]) * PRIME5), 11) * PRIME1
        at += 1
    return _avalanche(acc)


@inlined
def _whole_number(data, begin, end):
    """The number that a text is, and whether it is one: `schemas.hashing.WHOLE_NUMBER`."""
    first = begin + 1 if data[begin] == MINUS else begin
    number = np.int64(0)
    if not 0 < end - first <= MAX_DIGITS or (data[first] == ZERO and (end - begin) > 1):
        return number, False
    for i in range(first, end):
        if data[i] < ZERO or data[i] > NINE:
            return number, False
        number = number * 10 + np.int64(data[i] - ZERO)
    return (-number if first > begin else number), True


@compiled
def hash_numbers(numbers, salt):
    """uint64 [N]: hashes of whole numbers, int64 [N]."""
    hashes = np.empty(len(numbers), np.uint64)
    for i in range(len(numbers)):
        hashes[i] = _of_number(numbers[i], salt)
    return hashes


@compiled
def hash_texts(data, offsets, salt):
    """uint64 [N]: hashes of texts; text i is data[offsets[i] : offsets[i + 1]], uint8 and int32 [N + 1]."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(hashes)):
        begin, end = np.int64(offsets[i]), np.int64(offsets[i + 1])
        if begin < end:
            number, is_number = _whole_number(data, begin, end)
            if is_number:
                hashes[i] = _of_number(number, salt)
                continue
        hashes[i] = of_bytes(data, begin, end, salt)
    return hashes


@compiled
def to_buckets(hashes, present, num_buckets):
    """int32 [N]: the bucket of each hash, 0 where the id is not present. num_buckets: uint64."""
    buckets = np.zeros(len(hashes), np.int32)
    for i in range(len(hashes)):
        if present[i]:
            buckets[i] = np.int32(ONE + (hashes[i] & POSITIVE) % (num_buckets - ONE))
    return buckets


@compiled
def look_up(hashes, present, num_buckets, salt, known, exact, first, mask):
    """int32 [N]: the bucket of each hash in a field with an id table, 0 where the id is not present.

    known, exact: of `jobs.raw_logs.id_lookup.IdTable`, where the field's slots begin at `first`; their number
    is `mask` + 1, uint64. A known id's slot follows from its key, which is hashed once more, with the salt.
    """
    buckets = np.zeros(len(hashes), np.int32)
    for i in range(len(hashes)):
        if present[i]:
            positive = hashes[i] & POSITIVE
            key = np.int64(positive)
            step = _of_number(key, salt) & mask
            slot = first + np.int64(step)
            while known[slot] != key and known[slot] != EMPTY:
                step = (step + ONE) & mask
                slot = first + np.int64(step)
            if known[slot] == EMPTY:
                buckets[i] = RARE
            elif slot < len(exact):
                buckets[i] = exact[slot]
            else:
                buckets[i] = np.int32(TWO + positive % (num_buckets - TWO))
    return buckets


@compiled
def row_hashes(words, starts):
    """uint64 [N]: a hash of each packed row."""
    data = words.view(np.uint8)
    hashes = np.empty(len(starts) - 1, np.uint64)
    for n in range(len(hashes)):
        hashes[n] = of_bytes(data, 4 * starts[n], 4 * starts[n + 1], np.uint64(0))
    return hashes
