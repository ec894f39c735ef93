"""The compiled parser: walks the bytes of raw log lines once and packs them as 32-bit words.

Two kernels share it: `parse_lines` for samples, `list_ids` for the counts behind an id table.

numba compiles the functions below for the machine they run on and caches them beside this file. It
compiles anew only where this file changed, so whatever depends on the fields is an argument.
Numbers are read as uint64 or int64 throughout: mixing the two would silently turn them into floats.
Every line ends with a line feed, at which every walk stops, so none needs a bound.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

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
ONE, TWO = np.uint64(1), np.uint64(2)
MISSING, RARE = np.int64(hashing.MISSING), np.int64(hashing.RARE)
EMPTY = np.int64(-1)  # in a free slot of an id table

NEXT_FEATURE, BEFORE_ID, BEFORE_VALUE = 1, 2, 3  # the bytes that separate features and their parts
LINE_FEED, COMMA, DOT, ZERO, UNDERSCORE = (ord(char) for char in "\n,.0_")
LOWER_E, UPPER_E, PLUS, MINUS = (ord(char) for char in "eE+-")
MAX_DIGITS = 18
EXACT_DIGITS = 15  # a double holds every whole number of so many
POWERS = 10.0 ** np.arange(EXACT_DIGITS)
BEYOND_FLOAT32 = 2.0**128 - 2.0**103  # the smallest number that float32 rounds to infinity

NO_DIGIT = 255
HEXADECIMAL = np.full(256, NO_DIGIT, np.uint8)
for _value, _char in enumerate(b"0123456789abcdef"):
    HEXADECIMAL[_char] = _value


# What the kernels must know of a field. salt, buckets: of its hash. raw: its ids leave _parse_features as
# they are. first, mask: where its slots in the id table begin, and their number, a power of two, - 1. One
# array of records, not an array of each: every array that a kernel can see costs it registers.
FIELD_DTYPE = np.dtype(
    [
        ("salt", np.uint64),
        ("buckets", np.uint64),
        ("first", np.int64),
        ("mask", np.uint64),
        ("multi", np.bool_),
        ("weighted", np.bool_),
        ("raw", np.bool_),
    ],
    align=True,
)


class ParseLayout(NamedTuple):
    """What the kernels must know of the fields and of `jobs.raw_logs.packed_rows`; all arrays read-only.

    fields: FIELD_DTYPE [F]; the first num_user_fields are user fields. user_id: place of the field whose raw
    id is the user's, -1 for none. field_of_code: int16 [codes], place of the field with each code, -1 where
    there is none. looked_up: int64, the fields with ids in the table.
    known: int64 [slots], their ids, field by field; EMPTY in a free slot. exact: int32, the buckets of the
    first len(exact) slots; those of the others follow from the hash.
    """

    fields: np.ndarray
    field_of_code: np.ndarray
    looked_up: np.ndarray
    known: np.ndarray
    exact: np.ndarray
    num_user_fields: int
    user_id: int
    context_header: int
    impression_header: int
    shortest_feature: int


inlined = njit(nogil=True, error_model="numpy", forceinline=True)  # a call would cost more than most do


@inlined
def _rotate(value, bits):
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inlined
def _hash(feature_id, salt):
    """The lower 63 bits of schemas.hashing.hash_id, as uint64; salt: uint64."""
    acc = salt + PRIME5 + EIGHT
    acc ^= _rotate(np.uint64(feature_id) * PRIME2, 31) * PRIME1
    acc = _rotate(acc, 27) * PRIME1 + PRIME4
    acc = (acc ^ (acc >> np.uint64(33))) * PRIME2
    acc = (acc ^ (acc >> np.uint64(29))) * PRIME3
    acc ^= acc >> np.uint64(32)
    return acc & POSITIVE


@inlined
def _slot(known, feature_id, field, hashed):
    """The slot with this id of a field, or the free one in which it belongs."""
    step = hashed & field.mask
    slot = field.first + np.int64(step)
    while known[slot] != feature_id and known[slot] != EMPTY:
        step = (step + ONE) & field.mask
        slot = field.first + np.int64(step)
    return slot


@intrinsic
def _prefetch(context, array, index):
    """The processor starts to fetch array[index] and does not wait for it."""

    def code(context, builder, signature, arguments):
        array_type = signature.args[0]
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [ir.IntType(8).as_pointer()], kind)
        builder.call(function, [address, ir.Constant(word, 0), ir.Constant(word, 3), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(array, index), code


@inlined
def _fetch_slot(known, feature_id, field):
    """Fetch the first slot that _slot will look at: a large table lies far from the processor, and at the
    end of the line, when all ids are looked up, it is there."""
    _prefetch(known, field.first + np.int64(_hash(feature_id, field.salt) & field.mask))


@inlined
def _known_bucket(feature_id, field, layout):
    """schemas.ids.bucket_of for a field with ids in the table."""
    hashed = _hash(feature_id, field.salt)
    slot = _slot(layout.known, feature_id, field, hashed)
    if layout.known[slot] == EMPTY:
        return RARE
    if slot < len(layout.exact):
        return np.int64(layout.exact[slot])
    return np.int64(TWO + hashed % (field.buckets - TWO))


@inlined
def _look_up(ids, counts, expected, layout):
    """Turn the raw ids that _parse_features left into buckets."""
    for field in layout.looked_up:
        for i in range(field * expected, field * expected + counts[field]):
            ids[i] = _known_bucket(ids[i], layout.fields[field], layout)


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


@intrinsic
def _strtod(context, array, index):
    """C's strtod for the text at array[index], which must be a number that ends before its line does."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        text = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.DoubleType(), [text, text.as_pointer()])
        function = cgutils.get_or_insert_function(builder.module, kind, "strtod")
        address = builder.bitcast(builder.gep(data, [arguments[1]]), text)
        return builder.call(function, [address, ir.Constant(text.as_pointer(), None)])

    return types.float64(array, index), code


@njit(nogil=True, error_model="numpy")
def _unusual_number(data, begin):
    """As _decimal_number, for whatever else float() takes for a number: one without a point, with many
    digits, with an exponent, with no digit on one side of the point."""
    mantissa, mark = _digits(data, begin, 0)
    digits = mark - begin
    if 0 < digits <= EXACT_DIGITS and data[mark] <= LINE_FEED:
        return np.float64(mantissa), mark
    if data[mark] == DOT:
        _, mark = _digits(data, mark + 1, 0)
        digits = mark - begin - 1
    if digits > 0 and (data[mark] == LOWER_E or data[mark] == UPPER_E):
        sign = data[mark + 1] == PLUS or data[mark + 1] == MINUS
        exponent = mark + 2 if sign else mark + 1
        _, mark = _digits(data, exponent, 0)
        digits = mark - exponent
    value = _strtod(data, begin) if digits > 0 else -1.0
    return (value if value < BEYOND_FLOAT32 else -1.0), mark


@inlined
def _decimal_number(data, begin):
    """The finite number >= 0 that is written at `begin`, rounded as Python's float() does, or -1.0, and the
    position behind it.

    The usual one, such as 1.09861, is the quotient of two numbers that a double holds exactly.
    """
    mantissa, dot = _digits(data, begin, 0)
    if data[dot] == DOT:
        mantissa, end = _digits(data, dot + 1, mantissa)
        if dot > begin and dot + 1 < end <= begin + EXACT_DIGITS + 1 and data[end] <= LINE_FEED:
            return mantissa / POWERS[end - dot - 1], end
    return _unusual_number(data, begin)


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

    Only fields first..last-1 belong here. counts [F]: values per field. ids, weights: the buckets (of
    `raw` fields the raw ids) and values of field f, in the line's order, from f * expected on. head[0]: the
    raw id of the user, where this is its field.
    """
    counts[:] = 0
    found = 0
    mark = begin
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
        if counts[field] > 0 and not layout.fields[field].multi:
            return REPEATED_SINGLE, mark
        at = field * expected + counts[field]
        if layout.fields[field].raw:
            ids[at] = feature_id
            _fetch_slot(layout.known, feature_id, layout.fields[field])
        else:
            hashed = _hash(feature_id, layout.fields[field].salt)
            ids[at] = np.int64(ONE + hashed % (layout.fields[field].buckets - ONE))
        weights[at] = value
        counts[field] += 1
        found += 1
        if field == layout.user_id:
            head[0] = feature_id
    return 0 if found == expected else COUNT_MISMATCH, mark


@inlined
def _pack_fields(words, floats, position, first, last, expected, layout, ids, weights, counts):
    """Write the fields first..last-1 in the packed layout at `position`; the position behind them."""
    for field in range(first, last):
        count = counts[field]
        begin = field * expected
        if layout.fields[field].multi:
            words[position] = count
            position += 1
            for i in range(count):
                words[position + i] = ids[begin + i]
            position += count
            if layout.fields[field].weighted:
                for i in range(count):
                    floats[position + i] = weights[begin + i]
                position += count
        else:
            words[position] = ids[begin] if count else MISSING
            position += 1
            if layout.fields[field].weighted:
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
def _list_ids(words, position, first, last, expected, ids, counts):
    """Write every feature as 3 words, the index of its field and its raw id; the position behind the last."""
    for field in range(first, last):
        for i in range(field * expected, field * expected + counts[field]):
            words[position] = field
            _write_int64(words, position + 1, ids[i])
            position += 3
    return position


@inlined
def _write_header(words, position, common, head, offset, layout):
    """Write what precedes the fields of a context or an impression; the position behind it."""
    _write_int64(words, position, head[0])
    if common:
        return position + layout.context_header
    _write_int64(words, position + 2, offset)
    words[position + 4] = head[1]
    return position + layout.impression_header


@inlined
def _parse_lines(data, base, common, max_run, layout, words, floats, keys, orders, starts, bad, only_ids):
    """parse_lines where only_ids is None, list_ids otherwise: numba decides by the type and leaves the
    other branch out of the machine code, which a flag would slow down."""
    first, last = (0, layout.num_user_fields) if common else (layout.num_user_fields, len(layout.fields))
    most = len(data) // layout.shortest_feature + 1
    commas = np.empty(5, np.int64)
    head = np.empty(3, np.int64)
    counts = np.empty(len(layout.fields), np.int64)
    ids = np.empty(most * len(counts), np.int64)
    weights = np.empty(most * len(counts), np.float32)
    rows = 0
    run = 0
    broken = 0
    position = 0
    begin = 0
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
            bad[broken, 0] = reason
            bad[broken, 1] = begin
            bad[broken, 2] = end
            broken += 1
        else:
            if common or rows == 0 or keys[rows - 1] != key or run == max_run:
                keys[rows] = key
                orders[rows] = base + begin
                starts[rows] = position
                rows += 1
                run = 0
            run += 1
            if only_ids is None:
                _look_up(ids, counts, expected, layout)
                position = _write_header(words, position, common, head, base + begin, layout)
                position = _pack_fields(
                    words, floats, position, first, last, expected, layout, ids, weights, counts
                )
            else:
                position = _list_ids(words, position, first, last, expected, ids, counts)
        begin = end + 1
    starts[rows] = position
    return rows, broken


@njit(cache=True, nogil=True, error_model="numpy")
def parse_lines(data, base, common, max_run, layout, words, floats, keys, orders, starts, bad):
    """Parse the lines in data (uint8), the first of which lies at byte offset `base` of its file.

    common: the file's side. Rows are its records or, of a skeleton, runs of at most max_run impressions
    of a context. Per row: keys (uint64), orders (byte offset of its first line) and starts (its first
    word in `words`, seen as float32 through `floats`). Per broken line: a row of `bad` [n, 3] = reason,
    begin, end within data. Returns (rows, broken lines).
    """
    return _parse_lines(data, base, common, max_run, layout, words, floats, keys, orders, starts, bad, None)


@njit(cache=True, nogil=True, error_model="numpy")
def list_ids(data, base, common, max_run, layout, words, floats, keys, orders, starts, bad):
    """As parse_lines, but a row is its features as 3 words each, the index of the field and the raw id.

    All fields of the layout must be `raw`.
    """
    return _parse_lines(data, base, common, max_run, layout, words, floats, keys, orders, starts, bad, True)


@njit(cache=True, nogil=True, error_model="numpy")
def put_ids(row_fields, row_ids, row_buckets, fields, known, exact, room):
    """Put rows of an id table into known and exact of a ParseLayout, which can be written to here.

    room: int64 [F], how many more ids each field takes. Returns whether there was room for all, and none
    of them twice.
    """
    for row in range(len(row_ids)):
        field = row_fields[row]
        feature_id = row_ids[row]
        if room[field] == 0:
            return False
        slot = _slot(known, feature_id, fields[field], _hash(feature_id, fields[field].salt))
        if known[slot] == feature_id:
            return False
        known[slot] = feature_id
        if slot < len(exact):
            exact[slot] = row_buckets[row]
        room[field] -= 1
    return True
