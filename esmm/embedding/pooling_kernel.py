"""Compiled loops over the tokens of a batch. They depend on their arguments only: numba caches them."""

import numpy as np
from numba import njit

DIGIT_BITS = 11  # of the radix sort: 2048 counters stay in the first-level cache


@njit(cache=True, nogil=True)
def sort_by_key(keys, num_keys):
    """Positions of keys (int32 [T], each in 0..num_keys-1), key by key and in order within a key."""
    num_tokens = len(keys)
    order = np.empty(num_tokens, np.int32)
    for token in range(num_tokens):
        order[token] = token
    spare = np.empty(num_tokens, np.int32)
    shift = 0
    mask = (1 << DIGIT_BITS) - 1
    while shift == 0 or (num_keys - 1) >> shift > 0:
        starts = np.zeros(mask + 2, np.int64)
        for token in range(num_tokens):
            starts[((keys[token] >> shift) & mask) + 1] += 1
        for digit in range(mask + 1):
            starts[digit + 1] += starts[digit]
        for i in range(num_tokens):
            token = order[i]
            digit = (keys[token] >> shift) & mask
            spare[starts[digit]] = token
            starts[digit] += 1
        order, spare = spare, order
        shift += DIGIT_BITS
    return order


@njit(cache=True, nogil=True)
def transpose(ids, weights, offsets, num_ids, most):
    """The tokens of all bags, id by id, and the tokens of an id in segments of at most `most`.

    Returns distinct ids [N], first segment of each [N + 1], first token of each segment [S + 1], bags [T],
    weights [T].
    """
    num_tokens = len(ids)
    bag_of = np.empty(num_tokens, np.int32)
    for bag in range(len(offsets) - 1):
        for token in range(offsets[bag], offsets[bag + 1]):
            bag_of[token] = bag
    order = sort_by_key(ids, num_ids)
    rows = np.empty(num_tokens, np.int32)
    row_starts = np.empty(num_tokens + 1, np.int32)
    starts = np.empty(num_tokens + 1, np.int32)
    bags = np.empty(num_tokens, np.int32)
    bag_weights = np.empty(num_tokens, np.float32)
    num_rows = 0
    num_segments = 0
    for i in range(num_tokens):
        token = order[i]
        is_new = i == 0 or ids[token] != rows[num_rows - 1]
        if is_new:
            rows[num_rows] = ids[token]
            row_starts[num_rows] = num_segments
            num_rows += 1
        if is_new or i - starts[num_segments - 1] == most:
            starts[num_segments] = i
            num_segments += 1
        bags[i] = bag_of[token]
        bag_weights[i] = weights[token]
    row_starts[num_rows] = num_segments
    starts[num_segments] = num_tokens
    return rows[:num_rows], row_starts[: num_rows + 1], starts[: num_segments + 1], bags, bag_weights


@njit(cache=True, nogil=True)
def encode_requests(ids, weights, offsets, num_lists, rows_per_rank, world_size):
    """The input dist of a batch, what its rows' owners are sent, and its bags over what they send back.

    The first num_lists bags are lists: an owner sums up what it holds of one, so a partial sum (bag, owner)
    costs one vector. Of the other bags' tokens each distinct row costs one vector.
    Row g is local row g // world_size of rank g % world_size.

    Returns message int32, its length per owner, vectors that each owner sends back (the output dist), and
    the bags over those vectors: ids, weights, offsets. An owner's part of the message:
    [partials, tokens, rows | tokens of each partial | local rows | weights (bits) | distinct local rows]
    """
    distinct, inverse, rows = _distinct_rows(ids[offsets[num_lists] :], rows_per_rank, world_size)
    partials, tokens = _count_partials(ids, offsets, num_lists, world_size)
    lengths = 3 + partials + 2 * tokens + rows
    message = np.empty(lengths.sum(), np.int32)
    begin = 0
    row = 0
    for owner in range(world_size):
        message[begin] = partials[owner]
        message[begin + 1] = tokens[owner]
        message[begin + 2] = rows[owner]
        begin += lengths[owner]
        for i in range(rows[owner]):
            message[begin - rows[owner] + i] = distinct[row + i] - owner * rows_per_rank
        row += rows[owner]
    _write_partials(ids, weights.view(np.int32), offsets, num_lists, message, lengths, partials, tokens)
    bags = _bags_of_outputs(
        ids, weights, offsets, num_lists, distinct, inverse, rows_per_rank, partials, rows
    )
    return message, lengths, partials + rows, bags[0], bags[1], bags[2]


@njit(cache=True, nogil=True)
def _distinct_rows(ids, rows_per_rank, world_size):
    """Keys owner * rows_per_rank + local row: the distinct ones, which of them a token is, rows per owner."""
    keys = np.empty(len(ids), np.int32)
    for token in range(len(ids)):
        keys[token] = (ids[token] % world_size) * rows_per_rank + ids[token] // world_size
    order = sort_by_key(keys, rows_per_rank * world_size)
    distinct = np.empty(len(keys), np.int32)
    inverse = np.empty(len(keys), np.int32)
    rows = np.zeros(world_size, np.int64)
    found = 0
    for i in range(len(keys)):
        key = keys[order[i]]
        if i == 0 or key != distinct[found - 1]:
            distinct[found] = key
            rows[key // rows_per_rank] += 1
            found += 1
        inverse[order[i]] = found - 1
    return distinct[:found], inverse, rows


@njit(cache=True, nogil=True)
def _count_partials(ids, offsets, num_lists, world_size):
    """How many partial sums, of how many tokens, each owner makes of the first num_lists bags."""
    partials = np.zeros(world_size, np.int64)
    tokens = np.zeros(world_size, np.int64)
    last = np.full(world_size, -1, np.int64)
    for bag in range(num_lists):
        for token in range(offsets[bag], offsets[bag + 1]):
            owner = ids[token] % world_size
            tokens[owner] += 1
            if last[owner] != bag:
                partials[owner] += 1
                last[owner] = bag
    return partials, tokens


@njit(cache=True, nogil=True)
def _write_partials(ids, weight_bits, offsets, num_lists, message, lengths, partials, tokens):
    """The partial sums' lengths, local rows and weights, into each owner's part of the message."""
    world_size = len(lengths)
    at_partial = np.cumsum(lengths) - lengths + 2
    at_token = at_partial + partials + 1
    last = np.full(world_size, -1, np.int64)
    for bag in range(num_lists):
        for token in range(offsets[bag], offsets[bag + 1]):
            owner = ids[token] % world_size
            if last[owner] != bag:
                last[owner] = bag
                at_partial[owner] += 1
                message[at_partial[owner]] = 0
            message[at_partial[owner]] += 1
            message[at_token[owner]] = ids[token] // world_size
            message[at_token[owner] + tokens[owner]] = weight_bits[token]
            at_token[owner] += 1


@njit(cache=True, nogil=True)
def _bags_of_outputs(ids, weights, offsets, num_lists, distinct, inverse, rows_per_rank, partials, rows):
    """Bags over the output dist, owner by owner, partial sums before rows: ids, weights, offsets."""
    num_partials = partials.sum()
    first = offsets[num_lists]
    world_size = len(partials)
    out_ids = np.empty(num_partials + len(inverse), np.int32)
    out_weights = np.ones(num_partials + len(inverse), np.float32)
    out_offsets = np.zeros(len(offsets), np.int32)
    next_output = np.cumsum(partials + rows) - partials - rows
    # Row number n of all distinct ones is output n + shift[owner].
    shift = np.cumsum(partials)
    last = np.full(world_size, -1, np.int64)
    position = 0
    for bag in range(num_lists):
        for token in range(offsets[bag], offsets[bag + 1]):
            owner = ids[token] % world_size
            if last[owner] != bag:
                last[owner] = bag
                out_ids[position] = next_output[owner]
                next_output[owner] += 1
                position += 1
        out_offsets[bag + 1] = position
    for i in range(len(inverse)):
        out_ids[position + i] = inverse[i] + shift[distinct[inverse[i]] // rows_per_rank]
        out_weights[position + i] = weights[first + i]
    for bag in range(num_lists, len(offsets) - 1):
        out_offsets[bag + 1] = position + offsets[bag + 1] - first
    return out_ids, out_weights, out_offsets


@njit(cache=True, nogil=True)
def decode_requests(message, lengths):
    """The bags in the ranks' messages, in their order: local rows, weights, offsets; bags per rank."""
    num_bags = 0
    num_tokens = 0
    begin = 0
    bags = np.empty(len(lengths), np.int64)
    for rank in range(len(lengths)):
        partials = message[begin]
        tokens = message[begin + 1]
        rows = message[begin + 2]
        bags[rank] = partials + rows
        num_bags += partials + rows
        num_tokens += tokens + rows
        begin += lengths[rank]
    ids = np.empty(num_tokens, np.int32)
    weights = np.empty(num_tokens, np.float32)
    offsets = np.empty(num_bags + 1, np.int32)
    weight_bits = weights.view(np.int32)
    offsets[0] = 0
    bag = 0
    token = 0
    begin = 0
    for rank in range(len(lengths)):
        partials = message[begin]
        tokens = message[begin + 1]
        rows = message[begin + 2]
        at = begin + 3
        for i in range(partials):
            offsets[bag + 1] = offsets[bag] + message[at + i]
            bag += 1
        at += partials
        for i in range(tokens):
            ids[token] = message[at + i]
            weight_bits[token] = message[at + tokens + i]
            token += 1
        at += 2 * tokens
        for i in range(rows):
            ids[token] = message[at + i]
            weights[token] = 1.0
            token += 1
            offsets[bag + 1] = token
            bag += 1
        begin += lengths[rank]
    return ids, weights, offsets, bags
