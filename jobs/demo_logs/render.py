"""Compiled writers of raw log lines: drawn features to bytes, exactly as in Ali-CCP.

The kernels call none of another file: numba's cache notices changes in a function's own file only.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from jobs.demo_logs.draw import MAX_HITS
from jobs.demo_logs.laws import Array
from jobs.demo_logs.scratch import Lines
from jobs.demo_logs.world import FIELDS

COMMA, LINE_FEED, ZERO, LETTERS = 44, 10, 48, 87  # LETTERS + 10 is "a"
FEATURE_MARK, ID_MARK, VALUE_MARK = 1, 2, 3
BYTES_PER_FEATURE = 24  # field 6, id 8, value 7, three separators
BYTES_PER_LINE = 64  # the other columns

kernel = numba.njit(cache=True, nogil=True, error_model="numpy")


class Texts(NamedTuple):
    """What the writers copy: field names by place in FIELDS, values by code."""

    field: Array  # uint8 [fields, 8]
    field_length: Array  # int64 [fields]
    value: Array  # uint8 [codes, 8]
    value_length: Array  # int64 [codes]


def _as_table(texts: list[str]) -> tuple[Array, Array]:
    table = np.array([text.encode().ljust(8) for text in texts], dtype="S8")
    return table.view(np.uint8).reshape(len(texts), 8), np.array([len(t) for t in texts], dtype=np.int64)


def make_texts() -> Texts:
    """Field names, and values as printed: at most five decimals, 1.0 for constants; coded by `value_code`."""
    counts = range(MAX_HITS + 1)
    numbers = [1.0, *(math.log1p(n) for n in counts), *(math.log1p(n / 12) for n in counts)]
    return Texts(*_as_table(list(FIELDS)), *_as_table([repr(round(x, 5)) for x in numbers]))


@kernel
def write_number(out, at, number):
    """Write a whole number >= 0 in decimal; returns the place after it."""
    end = at + 1
    rest = number // 10
    while rest:
        end += 1
        rest //= 10
    for place in range(end - 1, at - 1, -1):
        out[place] = ZERO + number % 10
        number //= 10
    return end


@kernel
def write_hex(out, at, number):
    """Write 64 bits as 16 hexadecimal digits; returns the place after them."""
    for place in range(16):
        digit = int((number >> np.uint64(60 - 4 * place)) & np.uint64(15))
        out[at + place] = ZERO + digit if digit < 10 else LETTERS + digit
    return at + 16


@kernel
def write_text(out, at, text, length):
    for place in range(length):
        out[at + place] = text[place]
    return at + length


@kernel
def write_features(texts, lines, line, out, at):
    """Write `common_feature_index,feature_num,feature_list` and the line end."""
    first = lines.start[line]
    end = lines.start[line + 1]
    at = write_hex(out, at, lines.context[line])
    out[at] = COMMA
    at = write_number(out, at + 1, end - first)
    out[at] = COMMA
    for feature in range(first, end):
        field = lines.field[feature]
        value = lines.value[feature]
        at = write_text(out, at + 1, texts.field[field], texts.field_length[field])
        out[at] = ID_MARK
        at = write_number(out, at + 1, lines.id[feature])
        out[at] = VALUE_MARK
        at = write_text(out, at + 1, texts.value[value], texts.value_length[value])
        out[at] = FEATURE_MARK
    out[at] = LINE_FEED
    return at + 1


@kernel
def write_lines(texts, lines, first_id, out):
    """Write all lines, as skeleton rows numbered from `first_id`, or as common records where that is 0."""
    at = 0
    for line in range(lines.context.shape[0]):
        if first_id > 0:
            at = write_number(out, at, first_id + line)
            for label in (2, 3):
                out[at] = COMMA
                out[at + 1] = ZERO + int(lines.labels[line, label])
                at += 2
            out[at] = COMMA
            at += 1
        at = write_features(texts, lines, line, out, at)
    return at


def render(texts: Texts, lines: Lines, first_id: int = 0) -> bytes:
    """The lines of a chunk: skeleton rows numbered from `first_id` >= 1, or common records (0)."""
    num_lines = lines.context.shape[0]
    num_features = int(lines.start[-1])
    out = np.empty(num_lines * BYTES_PER_LINE + num_features * BYTES_PER_FEATURE, dtype=np.uint8)
    return out[: write_lines(texts, lines, first_id, out)].tobytes()
