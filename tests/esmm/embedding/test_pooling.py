"""Pooling, its gradient and the exchange of vectors, against the obvious expressions on plain lists."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esmm.embedding.pooling import LONGEST_SEGMENT, Pooling
from esmm.embedding.pooling_kernel import sort_by_key
from esmm.embedding.row_request import Request, decode_requests, encode_requests
from tests.fixtures.ali_ccp import IMPRESSION_FIELDS, USER_FIELDS
from tests.fixtures.plain_batches import random_batch, to_batch


@given(st.lists(st.integers(0, 2**31 - 2), max_size=60))
def test_sort_by_key_is_a_stable_sort(keys: list[int]) -> None:
    order = sort_by_key(np.array(keys, np.int32), max(keys, default=0) + 1)
    assert order.tolist() == sorted(range(len(keys)), key=lambda i: keys[i])


@pytest.mark.parametrize("lengths", [[2, 0, 5, 1, 0], [0, 0], [], [3] * (2 * LONGEST_SEGMENT)])
def test_pooling_and_its_gradient(lengths: list[int]) -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 4, sum(lengths)).astype(np.int32)
    weights = rng.random(len(ids), np.float32)
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    pooling = Pooling.of(ids, weights, offsets, 4)
    table, upstream = torch.randn(4, 3), torch.randn(len(lengths), 3)
    expected, gradient = torch.zeros(len(lengths), 3), torch.zeros(4, 3)
    for bag, (low, high) in enumerate(pairwise(offsets)):
        for token in range(low, high):
            expected[bag] += float(weights[token]) * table[ids[token]]
            gradient[ids[token]] += float(weights[token]) * upstream[bag]
    torch.testing.assert_close(pooling.sums(table), expected)
    assert pooling.rows.tolist() == sorted(set(ids.tolist()))
    assert max(pooling.starts.diff(), default=0) <= LONGEST_SEGMENT
    torch.testing.assert_close(pooling.row_sums(upstream), gradient[pooling.rows])


def _messages(requests: list[Request], owner: int) -> tuple[torch.Tensor, list[int]]:
    """What an owner receives from all ranks: an alltoall by hand."""
    parts = [request.message.split(request.input_splits)[owner] for request in requests]
    return torch.cat(parts), [len(part) for part in parts]


@pytest.mark.parametrize(("num_rows", "workers"), [(60, 2), (61, 3), (500, 5), (5, 4)])
def test_owners_send_what_is_requested(num_rows: int, workers: int) -> None:
    rng, dim = random.Random(num_rows), 3
    table = torch.randn(num_rows, dim)
    batches = [to_batch(random_batch(rng, 4, 9, num_rows), num_rows, workers) for _ in range(workers)]
    whole = [encode_requests(batch.bags, batch.num_lists, num_rows, 1) for batch in batches]
    requests = [batch.request for batch in batches]
    outputs: list[list[torch.Tensor]] = [[] for _ in requests]
    gradients = [torch.randn(len(request.pooling.offsets) - 1, dim) for request in whole]
    to_table, expected = torch.zeros_like(table), torch.zeros_like(table)
    owned = []
    for owner in range(workers):
        pooling, splits = decode_requests(*_messages(requests, owner), len(table[owner::workers]))
        owned.append(pooling)
        for rank, part in enumerate(pooling.sums(table[owner::workers]).split(splits)):
            outputs[rank].append(part)
    for rank, request in enumerate(requests):
        assert [len(part) for part in outputs[rank]] == request.output_splits
        pooled = request.pooling.sums(torch.cat(outputs[rank]))
        torch.testing.assert_close(pooled, whole[rank].pooling.sums(table))
        expected[whole[rank].pooling.rows] += whole[rank].pooling.row_sums(gradients[rank])
    returned = [
        request.pooling.row_sums(gradient).split(request.output_splits)
        for request, gradient in zip(requests, gradients, strict=True)
    ]
    for owner, pooling in enumerate(owned):
        received = torch.cat([parts[owner] for parts in returned])
        to_table[owner::workers][pooling.rows] += pooling.row_sums(received)
    torch.testing.assert_close(to_table, expected)


def test_a_list_costs_one_vector_per_owner_and_other_fields_one_per_distinct_row() -> None:
    batch = to_batch(random_batch(random.Random(3), 5, 40, 30), 30, 2)
    lists = [batch.user.ids[low:high] for low, high in pairwise(batch.user.offsets)]
    partials = sum(len({int(row) % 2 for row in rows}) for rows in lists)
    assert len(lists) == 5 * len(USER_FIELDS)
    assert len(batch.impression) == 40 * len(IMPRESSION_FIELDS)
    assert sum(batch.request.output_splits) == partials + len(set(batch.impression.ids.tolist()))
