"""The compiled parser: walks the bytes of raw log lines once and packs them as 32-bit words.

numba compiles the functions below for the machine they run on and caches them beside this file. It
compiles anew only where this file changed, so whatever depends on the fields is an argument.
Numbers are read as uint64 or int64 throughout: mixing the two would silently turn them into floats.
Every line ends with a line feed, at which every walk stops, so none needs a bound.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

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

NEXT_FEATURE, BEFORE_ID, BEFORE_VALUE = 1, 2, 3  # the bytes that separate features and their parts
LINE_FEED, COMMA, DOT, ZERO, UNDERSCORE = (ord(char) for char in "\n,.0_")
MAX_DIGITS = 18
POWERS = 10.0 ** np.arange(MAX_DIGITS + 1)

NO_DIGIT = 255
HEXADECIMAL = np.full(256, NO_DIGIT, np.uint8)
for _value, _char in enumerate(b"0123456789abcdef"):
    HEXADECIMAL[_char] = _value


class Layout(NamedTuple):
    """What the kernels must know of the fields and of `jobs.packed`; all arrays read-only.

    field_of_code: int8 [codes], index of the field with each code, -1 where there is none. The first
    num_user_fields are user fields. multi, weighted: bool [23]. salts, buckets: uint64 [23].
    """

    field_of_code: np.ndarray
    multi: np.ndarray
    weighted: np.ndarray
    num_user_fields: int
    context_header: int
    impression_header: int
    shortest_feature: int
    salts: np.ndarray
    buckets: np.ndarray


inlined = njit(nogil=True, error_model="numpy", forceinline=True)  # a call would cost more than most do


@inlined
def _rotate(value, bits):
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inlined
def bucket_of(feature_id, salt, buckets):
    """schemas.hashing.bucket for one id; all arguments and the result uint64."""
    acc = salt + PRIME5 + EIGHT
    acc ^= _rotate(feature_id * PRIME2, 31) * PRIME1
    acc = _rotate(acc, 27) * PRIME1 + PRIME4
    acc = (acc ^ (acc >> np.uint64(33))) * PRIME2
    acc = (acc ^ (acc >> np.uint64(29))) * PRIME3
    acc ^= acc >> np.uint64(32)
    return ONE + (acc & POSITIVE) % (buckets - ONE)


@inlined
def _find(data, begin, byte):
    """Position of the first such byte in the rest of the line, or of its line feed."""
    while data[begin] != byte and data[begin] != LINE_FEED:
        begin += 1
    return begin


@inlined
def _digits(data, begin, number):
    """The number with the digits at `begin` appended, and the position behind them.

    An unsigned index spares numba's check for negative ones, a quarter of the parser's time.
    """
    digit = np.int64(data[np.uint64(begin)]) - ZERO
    while 0 <= digit <= 9:
        number = number * 10 + digit
        begin += 1
        digit = np.int64(data[np.uint64(begin)]) - ZERO
    return number, begin


@inlined
def _whole_number(data, begin, end):
    """The number written in data[begin:end], or -1 if that is not 1 to 18 digits."""
    number, mark = _digits(data, begin, 0)
    return number if mark == end and 0 < end - begin <= MAX_DIGITS else np.int64(-1)


@inlined
def _decimal_number(data, begin):
    """A plain decimal number >= 0 such as 1.09861, or -1.0, and the position behind it.

    The format has no signs, exponents or NaN.
    """
    mantissa, dot = _digits(data, begin, 0)
    if data[dot] != DOT:
        valid = 0 < dot - begin <= MAX_DIGITS
        return (np.float64(mantissa) if valid else -1.0), dot
    mantissa, end = _digits(data, dot + 1, mantissa)
    valid = dot > begin and end > dot + 1 and end - begin <= MAX_DIGITS + 1
    return (mantissa / POWERS[end - dot - 1] if valid else -1.0), end


@inlined
def _context_key(data, begin, end):
    """16 hexadecimal digits as uint64 and whether they are that."""
    key = np.uint64(0)
    if end - begin != 16:
        return key, False
    seen = 0
    for i in range(begin, end):
        digit = HEXADECIMAL[data[i]]
        seen |= digit
        key = (key << np.uint64(4)) | np.uint64(digit)
    return key, seen < 16


@inlined
def _field_code(data, begin):
    """The code of the field that is named at `begin`, or -1, and the position of the byte behind it.

    Names are 3 digits, perhaps with _14, which adds 1000.
    """
    code, mark = _digits(data, begin, 0)
    if mark - begin == 3 and data[mark] == UNDERSCORE:
        number, end = _digits(data, mark + 1, 0)
        if number == 14 and end - mark == 3 and data[end] == BEFORE_ID:
            return code + 1000, end
    return code if mark - begin == 3 and data[mark] == BEFORE_ID else -1, mark


@inlined
def _field_at(data, begin, first, last, field_of_code):
    """Index of the field named at `begin` or minus a reason code, and the position of the byte behind."""
    code, mark = _field_code(data, begin)
    field = np.int64(field_of_code[code]) if code >= 0 else -1
    if field < 0:
        is_feature = data[_find(data, mark, BEFORE_ID)] == BEFORE_ID
        return -UNKNOWN_FIELD if is_feature else -BAD_FEATURE, mark
    return field if first <= field < last else -WRONG_SIDE, mark


@inlined
def _id_at(data, begin):
    """The raw id at `begin` or minus a reason code, and the position of the byte behind it."""
    feature_id, mark = _digits(data, begin, 0)
    if 0 < mark - begin <= MAX_DIGITS and data[mark] == BEFORE_VALUE:
        return feature_id, mark
    is_empty = mark == begin and (data[mark] == BEFORE_VALUE or data[mark] == LINE_FEED)
    return -EMPTY_ID if is_empty else -BAD_FEATURE, mark


@inlined
def _parse_features(data, begin, expected, first, last, layout, head, ids, weights, counts):
    """Parse the feature list at `begin` into scratch arrays; 0 or a reason code, and where it ended.

    Only fields first..last-1 belong here. counts [23]: values per field. ids, weights: the buckets and
    values of field f, in the line's order, from f * expected on. head[0]: the raw id of field 101.
    """
    counts[:] = 0
    found, mark = 0, begin
    more = data[begin] != LINE_FEED
    while more:
        if found >= expected:
            return COUNT_MISMATCH, mark
        field, mark = _field_at(data, mark + 1 if found else begin, first, last, layout.field_of_code)
        if field < 0:
            return -field, mark
        feature_id, mark = _id_at(data, mark + 1)
        if feature_id < 0:
            return -feature_id, mark
        value, mark = _decimal_number(data, mark + 1)
        more = data[mark] != LINE_FEED
        if value < 0.0 or (more and (data[mark] != NEXT_FEATURE or data[mark + 1] == LINE_FEED)):
            return BAD_FEATURE, mark
        if counts[field] > 0 and not layout.multi[field]:
            return REPEATED_SINGLE, mark
        at = field * expected + counts[field]
        ids[at] = np.int64(bucket_of(np.uint64(feature_id), layout.salts[field], layout.buckets[field]))
        weights[at] = value
        counts[field] += 1
        found += 1
        if field == 0:
            head[0] = feature_id
    return 0 if found == expected else COUNT_MISMATCH, mark


@inlined
def _pack_fields(words, floats, position, first, last, expected, layout, ids, weights, counts):
    """Write the fields first..last-1 in the packed layout at `position`; the position behind them."""
    for field in range(first, last):
        count = counts[field]
        begin = field * expected
        if layout.multi[field]:
            words[position] = count
            position += 1
            for i in range(count):
                words[position + i] = ids[begin + i]
            position += count
            if layout.weighted[field]:
                for i in range(count):
                    floats[position + i] = weights[begin + i]
                position += count
        else:
            words[position] = ids[begin] if count else np.int32(0)
            position += 1
            if layout.weighted[field]:
                floats[position] = weights[begin] if count else np.float32(0.0)
                position += 1
    return position


@inlined
def _write_int64(words, position, value):
    words[position] = np.int32(value & np.int64(0xFFFFFFFF))
    words[position + 1] = np.int32(value >> np.int64(32))


@inlined
def _head_commas(data, begin, commas):
    """Fill in the positions of the line's first len(commas) commas; False where it has fewer."""
    for found in range(len(commas)):
        commas[found] = _find(data, begin, COMMA)
        if data[commas[found]] == LINE_FEED:
            return False
        begin = commas[found] + 1
    return True


@inlined
def _common_head(data, begin, commas, head):
    """The columns before the features of a common line: reason code, key, where the features begin.

    head[0] becomes -1, no user id so far; head[2] the number of features expected.
    """
    key = np.uint64(0)
    if not _head_commas(data, begin, commas[:2]):
        return WRONG_COLUMN_COUNT, key, begin
    key, valid = _context_key(data, begin, commas[0])
    head[0] = -1
    head[2] = _whole_number(data, commas[0] + 1, commas[1])
    if not valid:
        return BAD_CONTEXT_ID, key, begin
    return 0 if head[2] >= 0 else BAD_NUMBER, key, commas[1] + 1


@inlined
def _skeleton_head(data, begin, commas, head):
    """As _common_head, for a skeleton line; head = sample_id, click | conversion << 1, features expected."""
    key = np.uint64(0)
    if not _head_commas(data, begin, commas):
        return WRONG_COLUMN_COUNT, key, begin
    head[0] = _whole_number(data, begin, commas[0])
    click = _whole_number(data, commas[0] + 1, commas[1])
    conversion = _whole_number(data, commas[1] + 1, commas[2])
    head[2] = _whole_number(data, commas[3] + 1, commas[4])
    if head[0] < 0 or head[2] < 0:
        return BAD_NUMBER, key, begin
    if click < 0 or click > 1 or conversion < 0 or conversion > 1:
        return BAD_LABEL, key, begin
    head[1] = click | (conversion << 1)
    key, valid = _context_key(data, commas[2] + 1, commas[3])
    if not valid:
        return BAD_CONTEXT_ID, key, begin
    return 0 if conversion <= click else CONVERSION_WITHOUT_CLICK, key, commas[4] + 1


@inlined
def _write_header(words, position, common, head, offset, layout):
    """Write what precedes the fields of a context or an impression; the position behind it."""
    _write_int64(words, position, head[0])
    if common:
        return position + layout.context_header
    _write_int64(words, position + 2, offset)
    words[position + 4] = head[1]
    return position + layout.impression_header


@njit(cache=True, nogil=True, error_model="numpy")
def parse_lines(data, base, common, max_run, layout, words, floats, keys, orders, starts, bad):
    """Parse the lines in data (uint8), the first of which lies at byte offset `base` of its file.

    common: the file's side. Rows are its records or, of a skeleton, runs of at most max_run impressions
    of a context. Per row: keys (uint64), orders (byte offset of its first line) and starts (its first
    word in `words`, seen as float32 through `floats`). Per broken line: a row of `bad` [n, 3] = reason,
    begin, end within data. Returns (rows, broken lines).
    """
    first, last = (0, layout.num_user_fields) if common else (layout.num_user_fields, len(layout.multi))
    most = len(data) // layout.shortest_feature + 1
    commas, head, counts = np.empty(5, np.int64), np.empty(3, np.int64), np.empty(len(layout.multi), np.int64)
    ids, weights = np.empty(most * len(counts), np.int32), np.empty(most * len(counts), np.float32)
    rows, run, broken, position, begin = 0, 0, 0, 0, 0
    while begin < len(data):
        if common:
            reason, key, end = _common_head(data, begin, commas, head)
        else:
            reason, key, end = _skeleton_head(data, begin, commas, head)
        expected = min(head[2], most)
        if reason == 0:
            features = end
            reason, end = _parse_features(
                data, features, expected, first, last, layout, head, ids, weights, counts
            )
            if reason and data[_find(data, features, COMMA)] == COMMA:
                reason = WRONG_COLUMN_COUNT  # a comma too many explains it
        if reason:
            end = _find(data, end, LINE_FEED)
            bad[broken, 0], bad[broken, 1], bad[broken, 2] = reason, begin, end
            broken += 1
        else:
            if common or rows == 0 or keys[rows - 1] != key or run == max_run:
                keys[rows], orders[rows], starts[rows] = key, base + begin, position
                rows += 1
                run = 0
            run += 1
            position = _write_header(words, position, common, head, base + begin, layout)
            position = _pack_fields(
                words, floats, position, first, last, expected, layout, ids, weights, counts
            )
        begin = end + 1
    starts[rows] = position
    return rows, broken
