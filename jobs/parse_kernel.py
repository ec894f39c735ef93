"""The compiled parser: walks the bytes of raw log lines once and packs them as 32-bit words.

numba compiles the functions below for the machine they run on and caches them beside this file.
Numbers are read as uint64 or int64 throughout: mixing the two would silently turn them into floats.
"""

import numpy as np
from numba import njit

from jobs.packed import (
    CONTEXT_HEADER,
    FIELD_CODES,
    FIELD_MULTI,
    FIELD_OF_CODE,
    FIELD_WEIGHTED,
    IMPRESSION_HEADER,
    NUM_FIELDS,
    NUM_USER_FIELDS,
)
from schemas import hashing
from schemas.raw_log import QUARANTINE_REASONS

WRONG_COLUMN_COUNT = QUARANTINE_REASONS.index("wrong_column_count")
BAD_NUMBER = QUARANTINE_REASONS.index("bad_number")
BAD_LABEL = QUARANTINE_REASONS.index("bad_label")
CONVERSION_WITHOUT_CLICK = QUARANTINE_REASONS.index("conversion_without_click")
BAD_CONTEXT_ID = QUARANTINE_REASONS.index("bad_context_id")
EMPTY_ID = QUARANTINE_REASONS.index("empty_id")
BAD_FEATURE = QUARANTINE_REASONS.index("bad_feature")
UNKNOWN_FIELD = QUARANTINE_REASONS.index("unknown_field")
WRONG_SIDE = QUARANTINE_REASONS.index("field_on_wrong_side")
REPEATED_SINGLE = QUARANTINE_REASONS.index("repeated_single_field")
COUNT_MISMATCH = QUARANTINE_REASONS.index("feature_count_mismatch")

PRIME1 = np.uint64(hashing.PRIME1)
PRIME2 = np.uint64(hashing.PRIME2)
PRIME3 = np.uint64(hashing.PRIME3)
PRIME4 = np.uint64(hashing.PRIME4)
PRIME5 = np.uint64(hashing.PRIME5)
POSITIVE = np.uint64(hashing.POSITIVE)
EIGHT = np.uint64(8)
ONE = np.uint64(1)

COMMA = ord(",")
LINE_FEED = ord("\n")
DOT = ord(".")
ZERO = ord("0")
MAX_DIGITS = 18
POWERS = 10.0 ** np.arange(MAX_DIGITS + 1)


@njit(cache=True, nogil=True, inline="always")
def _rotate(value, bits):
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@njit(cache=True, nogil=True)
def bucket_of(feature_id, salt, buckets):
    """schemas.hashing.bucket for one id; all arguments and the result uint64."""
    acc = salt + PRIME5 + EIGHT
    acc ^= _rotate(feature_id * PRIME2, 31) * PRIME1
    acc = _rotate(acc, 27) * PRIME1 + PRIME4
    acc = (acc ^ (acc >> np.uint64(33))) * PRIME2
    acc = (acc ^ (acc >> np.uint64(29))) * PRIME3
    acc ^= acc >> np.uint64(32)
    return ONE + (acc & POSITIVE) % (buckets - ONE)


@njit(cache=True, nogil=True)
def _whole_number(data, begin, end):
    """The number written in data[begin:end], or -1 if that is not 1 to 18 digits."""
    if begin >= end or end - begin > MAX_DIGITS:
        return np.int64(-1)
    value = np.int64(0)
    for i in range(begin, end):
        digit = np.int64(data[i]) - ZERO
        if digit < 0 or digit > 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


@njit(cache=True, nogil=True)
def _decimal_number(data, begin, end):
    """A plain decimal number >= 0 such as 1.09861, else -1.0: no signs, exponents or NaN in the format."""
    mantissa = np.int64(0)
    digits = 0
    fraction = -1
    for i in range(begin, end):
        char = data[i]
        if char == DOT and fraction < 0 and digits > 0:
            fraction = 0
            continue
        digit = np.int64(char) - ZERO
        if digit < 0 or digit > 9 or digits >= MAX_DIGITS:
            return -1.0
        mantissa = mantissa * 10 + digit
        digits += 1
        if fraction >= 0:
            fraction += 1
    if digits == 0 or fraction == 0:
        return -1.0
    return mantissa / POWERS[max(fraction, 0)]


@njit(cache=True, nogil=True)
def _context_key(data, begin, end):
    """16 hexadecimal digits as uint64 and whether they are that."""
    key = np.uint64(0)
    if end - begin != 16:
        return key, False
    for i in range(begin, end):
        char = data[i]
        if 48 <= char <= 57:
            digit = char - 48
        elif 97 <= char <= 102:
            digit = char - 87
        else:
            return key, False
        key = (key << np.uint64(4)) | np.uint64(digit)
    return key, True


@njit(cache=True, nogil=True)
def _field_at(data, begin, end):
    """Index of the field whose name is data[begin:end], or -1. Names are 3 digits, perhaps with _14."""
    length = end - begin
    if length != 3 and length != 6:
        return -1
    code = _whole_number(data, begin, begin + 3)
    if length == 6:
        if data[begin + 3] != 95 or data[begin + 4] != 49 or data[begin + 5] != 52:
            return -1
        code += 1000
    if code < 0 or code >= FIELD_CODES:
        return -1
    return np.int64(FIELD_OF_CODE[code])


@njit(cache=True, nogil=True)
def _find(data, begin, end, byte):
    """Position of the first such byte in data[begin:end], or end."""
    for i in range(begin, end):
        if data[i] == byte:
            return i
    return end


@njit(cache=True, nogil=True)
def _parse_feature(data, begin, end, first, last, counts, feature):
    """Parse one feature that begins at `begin` of a list that ends at `end`; reason, value, where it ends.

    feature [2]: field index and raw id are written there. Only fields first..last-1 belong here.
    """
    mark = _find(data, begin, end, 2)
    field = _field_at(data, begin, mark)
    if mark == end:
        return BAD_FEATURE, 0.0, end
    if field < 0:
        return UNKNOWN_FIELD, 0.0, end
    if field < first or field >= last:
        return WRONG_SIDE, 0.0, end
    begin_id = mark + 1
    mark = _find(data, begin_id, end, 3)
    if mark == begin_id:
        return EMPTY_ID, 0.0, end
    feature[0], feature[1] = field, _whole_number(data, begin_id, mark)
    if mark == end or feature[1] < 0:
        return BAD_FEATURE, 0.0, end
    begin_value = mark + 1
    mark = _find(data, begin_value, end, 1)
    value = _decimal_number(data, begin_value, mark)
    if value < 0.0 or mark == end - 1:
        return BAD_FEATURE, 0.0, end
    if counts[field] > 0 and not FIELD_MULTI[field]:
        return REPEATED_SINGLE, 0.0, end
    return 0, value, mark


@njit(cache=True, nogil=True)
def _parse_features(
    data, begin, end, expected, first, last, salts, buckets, fields, ids, weights, counts, user_id
):  # fmt: skip
    """Parse one feature list into scratch arrays; 0 or the reason code.

    fields, ids, weights [expected]: field index, bucket, value of each feature, in the line's order.
    counts [23]: values per field. user_id [1]: the raw id of field 101.
    """
    counts[:] = 0
    user_id[0] = -1
    feature = np.empty(2, np.int64)
    found = 0
    position = begin
    while position < end:
        if found >= expected:
            return COUNT_MISMATCH
        reason, value, mark = _parse_feature(data, position, end, first, last, counts, feature)
        if reason:
            return reason
        field, feature_id = feature[0], feature[1]
        counts[field] += 1
        fields[found] = field
        ids[found] = np.int64(bucket_of(np.uint64(feature_id), salts[field], buckets[field]))
        weights[found] = value
        if field == 0:
            user_id[0] = feature_id
        found += 1
        position = mark + 1
    return 0 if found == expected else COUNT_MISMATCH


@njit(cache=True, nogil=True)
def _pack_fields(words, floats, position, first, last, num_features, fields, ids, weights, counts, cursor):
    """Write the fields first..last-1 in the packed layout at `position`; the position behind them."""
    for field in range(first, last):
        count = counts[field]
        if FIELD_MULTI[field]:
            words[position] = count
            position += 1
        else:
            count = 1
            words[position] = 0
            if FIELD_WEIGHTED[field]:
                floats[position + 1] = 0.0
        cursor[field] = position
        position += count * 2 if FIELD_WEIGHTED[field] else count
    for i in range(num_features):
        field = fields[i]
        at = cursor[field]
        words[at] = ids[i]
        if FIELD_WEIGHTED[field]:
            floats[at + (counts[field] if FIELD_MULTI[field] else 1)] = weights[i]
        cursor[field] = at + 1
    return position


@njit(cache=True, nogil=True)
def _write_int64(words, position, value):
    words[position] = np.int32(value & np.int64(0xFFFFFFFF))
    words[position + 1] = np.int32(value >> np.int64(32))


@njit(cache=True, nogil=True)
def _head_commas(data, begin, end, commas):
    """Fill in the positions of the line's first len(commas) commas; False where it has fewer."""
    found = 0
    for i in range(begin, end):
        if data[i] == COMMA:
            commas[found] = i
            found += 1
            if found == len(commas):
                return True
    return False


@njit(cache=True, nogil=True)
def _reason_or_comma(data, begin, end, reason):
    """The feature list's own reason, unless a comma too many explains it."""
    for i in range(begin, end):
        if data[i] == COMMA:
            return WRONG_COLUMN_COUNT
    return reason


@njit(cache=True, nogil=True)
def parse_common(data, base, salts, buckets, words, floats, keys, orders, starts, bad):
    """Parse the lines in data (uint8), the first of which lies at byte offset `base` of its file.

    Per good line: keys (uint64), orders (its byte offset) and starts (its first word in `words`).
    Per broken one: a row of `bad` [n, 3] = reason, begin, end within data.
    `floats` is `words` seen as float32. Returns (good lines, broken lines).
    """
    commas = np.empty(2, np.int64)
    counts = np.empty(NUM_FIELDS, np.int64)
    cursor = np.empty(NUM_FIELDS, np.int64)
    user_id = np.empty(1, np.int64)
    fields = np.empty(len(data) // 6 + 1, np.int8)
    ids = np.empty(len(fields), np.int32)
    weights = np.empty(len(fields), np.float32)
    good = 0
    broken = 0
    position = 0
    begin = 0
    while begin < len(data):
        end = _find(data, begin, len(data), LINE_FEED)
        reason = 0
        key = np.uint64(0)
        expected = np.int64(0)
        if not _head_commas(data, begin, end, commas):
            reason = WRONG_COLUMN_COUNT
        else:
            key, valid = _context_key(data, begin, commas[0])
            expected = _whole_number(data, commas[0] + 1, commas[1])
            if not valid:
                reason = BAD_CONTEXT_ID
            elif expected < 0:
                reason = BAD_NUMBER
            else:
                reason = _parse_features(
                    data, commas[1] + 1, end, min(expected, np.int64(len(fields))), 0, NUM_USER_FIELDS,
                    salts, buckets, fields, ids, weights, counts, user_id,
                )  # fmt: skip
                if reason:
                    reason = _reason_or_comma(data, commas[1] + 1, end, reason)
        if reason:
            bad[broken, 0], bad[broken, 1], bad[broken, 2] = reason, begin, end
            broken += 1
        else:
            keys[good] = key
            orders[good] = base + begin
            starts[good] = position
            _write_int64(words, position, user_id[0])
            position = _pack_fields(
                words, floats, position + CONTEXT_HEADER, 0, NUM_USER_FIELDS,
                expected, fields, ids, weights, counts, cursor,
            )  # fmt: skip
            good += 1
        begin = end + 1
    starts[good] = position
    return good, broken


@njit(cache=True, nogil=True)
def _skeleton_head(data, begin, end, commas, head):
    """Columns 1 to 5 of a skeleton line into head = sample_id, labels, expected features; reason and key."""
    key = np.uint64(0)
    if not _head_commas(data, begin, end, commas):
        return WRONG_COLUMN_COUNT, key
    head[0] = _whole_number(data, begin, commas[0])
    click = _whole_number(data, commas[0] + 1, commas[1])
    conversion = _whole_number(data, commas[1] + 1, commas[2])
    head[2] = _whole_number(data, commas[3] + 1, commas[4])
    if head[0] < 0 or head[2] < 0:
        return BAD_NUMBER, key
    if click < 0 or click > 1 or conversion < 0 or conversion > 1:
        return BAD_LABEL, key
    head[1] = click | (conversion << 1)
    key, valid = _context_key(data, commas[2] + 1, commas[3])
    if not valid:
        return BAD_CONTEXT_ID, key
    if conversion > click:
        return CONVERSION_WITHOUT_CLICK, key
    return 0, key


@njit(cache=True, nogil=True)
def parse_skeleton(data, base, max_run, salts, buckets, words, floats, keys, orders, starts, bad):
    """As parse_common, for skeleton lines: one row per run of at most max_run impressions of a context.

    Returns (rows, broken lines).
    """
    commas = np.empty(5, np.int64)
    head = np.empty(3, np.int64)
    counts = np.empty(NUM_FIELDS, np.int64)
    cursor = np.empty(NUM_FIELDS, np.int64)
    user_id = np.empty(1, np.int64)
    fields = np.empty(len(data) // 6 + 1, np.int8)
    ids = np.empty(len(fields), np.int32)
    weights = np.empty(len(fields), np.float32)
    rows = 0
    run = 0
    broken = 0
    position = 0
    begin = 0
    while begin < len(data):
        end = _find(data, begin, len(data), LINE_FEED)
        reason, key = _skeleton_head(data, begin, end, commas, head)
        if reason == 0:
            reason = _parse_features(
                data, commas[4] + 1, end, min(head[2], np.int64(len(fields))), NUM_USER_FIELDS, NUM_FIELDS,
                salts, buckets, fields, ids, weights, counts, user_id,
            )  # fmt: skip
            if reason:
                reason = _reason_or_comma(data, commas[4] + 1, end, reason)
        if reason:
            bad[broken, 0], bad[broken, 1], bad[broken, 2] = reason, begin, end
            broken += 1
        else:
            if rows == 0 or keys[rows - 1] != key or run == max_run:
                keys[rows] = key
                orders[rows] = base + begin
                starts[rows] = position
                rows += 1
                run = 0
            run += 1
            _write_int64(words, position, head[0])
            _write_int64(words, position + 2, base + begin)
            words[position + 4] = head[1]
            position = _pack_fields(
                words, floats, position + IMPRESSION_HEADER, NUM_USER_FIELDS, NUM_FIELDS,
                head[2], fields, ids, weights, counts, cursor,
            )  # fmt: skip
        begin = end + 1
    starts[rows] = position
    return rows, broken
