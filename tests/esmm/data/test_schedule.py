"""Who reads what, how many steps there are and where a run goes on: against impressions moved one by one."""

import json
import random
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esmm.data.schedule import (
    Leg,
    Position,
    RowGroup,
    Schedule,
    Window,
    make_schedule,
    row_groups,
    shares,
    window_rng,
)
from schemas import manifest
from schemas.manifest import FileEntry
from tests.fixtures.sample_files import TEST_SCHEMA

SEED = 5
Contexts = list[list[int]]  # numbers of the impressions of each context


def test_row_groups_follow_file_names_then_positions() -> None:
    files = [
        FileEntry(name="part-00001.parquet", bytes=1, rows=[3], impressions=[30]),
        FileEntry(name="part-00000.parquet", bytes=1, rows=[1, 2], impressions=[10, 20]),
        FileEntry(name="part-00002.parquet", bytes=1, rows=[], impressions=[]),
    ]
    content = manifest.build(
        schema=TEST_SCHEMA, hash_seed=0, counts={}, quarantine={}, source={}, files=files
    )
    assert row_groups(content) == [
        RowGroup("part-00000.parquet", 0, 1, 10),
        RowGroup("part-00000.parquet", 1, 2, 20),
        RowGroup("part-00001.parquet", 0, 3, 30),
    ]


# ---- One leg ---------------------------------------------------------------------------------------


def schedule_of(num_impressions: tuple[int, ...], batch_size: int) -> Schedule:
    groups = (RowGroup("part", index, 1, count) for index, count in enumerate(num_impressions))
    return Schedule(tuple((Window((group,), (0, 0, 0)),) for group in groups), batch_size)


@pytest.mark.parametrize(
    ("num_impressions", "batch_size", "global_batch_sizes"),
    [
        ((10,), 4, [4, 4, 2]),
        ((8,), 4, [4, 4]),
        ((10, 5), 8, [8, 5, 2]),  # the second rank ends first
        ((3, 0, 9), 12, [7, 4, 1]),  # a rank without any data
        ((6, 4), 5, [5, 5]),  # three impressions for the first rank, two for the second
        ((0,), 4, []),
    ],
)
def test_global_batch_sizes(
    num_impressions: tuple[int, ...], batch_size: int, global_batch_sizes: list[int]
) -> None:
    schedule = schedule_of(num_impressions, batch_size)
    assert [schedule.global_batch_size(step) for step in range(schedule.steps + 1)] == [
        *global_batch_sizes,
        0,
    ]


@given(st.integers(1, 99), st.integers(1, 20))
def test_shares_differ_by_one_at_most(batch_size: int, workers: int) -> None:
    if batch_size < workers:
        with pytest.raises(ValueError, match="at least one impression per worker"):
            shares(batch_size, workers)
        return
    assert sum(shares(batch_size, workers)) == batch_size
    assert max(shares(batch_size, workers)) - min(shares(batch_size, workers)) <= 1


group_lists = st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=12)  # impressions of each context


def make_groups(counts: list[list[int]]) -> tuple[list[RowGroup], dict[int, Contexts]]:
    """Row groups, and for each the numbers of its impressions by context."""
    groups, contents, number = [], {}, 0
    for index, group in enumerate(counts):
        contents[index] = [
            list(range(number + sum(group[:i]), number + sum(group[: i + 1]))) for i in range(len(group))
        ]
        groups.append(RowGroup("part", index, len(group), sum(group)))
        number += sum(group)
    return groups, contents


@given(group_lists, st.integers(1, 9), st.integers(0, 30), st.sampled_from([0, 3]))
def test_ranks_end_almost_together(counts: list[list[int]], workers: int, more: int, window: int) -> None:
    """No rank has more steps than its fair part of the data and one row group."""
    groups, _ = make_groups(counts)
    batch_size, total = workers + more, sum(map(sum, counts))
    schedule = make_schedule(
        groups, Position.start(0), workers=workers, batch_size=batch_size, shuffle_window=window, seed=SEED
    )
    assert sum(schedule.num_impressions) == total
    largest = max((group.num_impressions for group in groups), default=0)
    for found, share in zip(schedule.num_impressions, schedule.shares, strict=True):
        assert found <= total * share / batch_size + largest


def test_windows_reach_the_number_of_contexts() -> None:
    groups = [RowGroup("part", index, rows, 9) for index, rows in enumerate([2, 2, 2, 5, 1])]
    (windows,) = plan(groups, Position.start(0), 1, 4, window=4).windows
    sizes = [[group.num_rows for group in window.groups] for window in windows]
    assert sorted(rows for window in sizes for rows in window) == [1, 2, 2, 2, 5]
    assert all(sum(window[:-1]) < 4 for window in sizes)
    assert all(sum(window) >= 4 for window in sizes[:-1])
    assert [window.key for window in windows] == [(0, 0, number) for number in range(len(windows))]


def test_seed_epoch_and_leg_decide_the_order() -> None:
    groups = [RowGroup("part", index, 1, 1) for index in range(50)]

    def order(seed: int, position: Position, window: int = 5) -> list[int]:
        options = {"workers": 1, "batch_size": 1, "shuffle_window": window, "seed": seed}
        (windows,) = make_schedule(groups, position, **options).windows
        return [group.index for window in windows for group in window.groups]

    first = order(1, Position.start(0))
    assert first == order(1, Position.start(0)) != list(range(50))
    assert first != order(2, Position.start(0)) and first != order(1, Position.start(1))
    assert order(1, Position.start(0), window=0) == list(range(50))
    later = order(1, Position(0, (Leg(2, 2, 10),)))
    assert later != [index for index in first if index in later]


# ---- Several legs ----------------------------------------------------------------------------------


def plan(groups: list[RowGroup], position: Position, workers: int, batch_size: int, window: int) -> Schedule:
    return make_schedule(
        groups, position, workers=workers, batch_size=batch_size, shuffle_window=window, seed=SEED
    )


def contexts_of(window: Window, epoch: int, contents: dict[int, Contexts], shuffle: bool) -> Contexts:
    """What a window means, one impression at a time."""
    contexts = [context for group in window.groups for context in contents[group.index]]
    order = np.arange(len(contexts))
    if shuffle:
        window_rng(SEED, epoch, window).shuffle(order)
    left, skip = [], window.skip
    for context in (contexts[i] for i in order):
        left.append(context[skip:])
        skip = max(0, skip - len(context))
    return [context for context in left if context]


def stream(
    schedule: Schedule, rank: int, epoch: int, contents: dict[int, Contexts], shuffle: bool
) -> list[int]:
    windows = (contexts_of(window, epoch, contents, shuffle) for window in schedule.windows[rank])
    return [impression for window in windows for context in window for impression in context]


legs = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 6), st.integers(0, 8)).map(
        lambda leg: Leg(leg[0], leg[0] + leg[1], leg[2])
    ),
    max_size=5,
)


@settings(max_examples=300)
@given(group_lists, legs, st.sampled_from([0, 1, 3, 100]), st.integers(0, 3))
def test_no_sequence_of_legs_loses_or_repeats_an_impression(
    counts: list[list[int]], legs: list[Leg], window: int, epoch: int
) -> None:
    groups, contents = make_groups(counts)
    position, seen = Position.start(epoch), Counter[int]()
    for leg in [*legs, Leg(2, 3, 10**6)]:
        schedule = plan(groups, position, leg.workers, leg.batch_size, window)
        for rank, share in enumerate(schedule.shares):
            left = stream(schedule, rank, epoch, contents, window > 0)
            assert len(left) == schedule.num_impressions[rank]
            seen.update(left[: leg.steps * share])
        position = position.after(leg.steps, leg.workers, leg.batch_size)
    assert seen == Counter(range(sum(map(sum, counts))))
    assert plan(groups, position, 4, 4, window).steps == 0


@given(group_lists, legs, st.lists(st.integers(0, 4), max_size=4), st.sampled_from([0, 3]))
def test_the_same_workers_go_on_as_if_never_interrupted(
    counts: list[list[int]], before: list[Leg], stops: list[int], window: int
) -> None:
    groups, contents = make_groups(counts)
    start = Position.start(0)
    for leg in before:
        start = start.after(leg.steps, leg.workers, leg.batch_size)
    whole, position = plan(groups, start, 3, 7, window), start
    for steps in stops:
        position = position.after(steps, 3, 7)
    rest = plan(groups, position, 3, 7, window)
    assert rest.steps == max(0, whole.steps - sum(stops))
    for rank, share in enumerate(whole.shares):
        expected = stream(whole, rank, 0, contents, window > 0)[share * sum(stops) :]
        assert stream(rest, rank, 0, contents, window > 0) == expected
    sizes = [whole.global_batch_size(sum(stops) + step) for step in range(rest.steps)]
    assert [rest.global_batch_size(step) for step in range(rest.steps)] == sizes


def test_consumed_windows_are_not_read_again() -> None:
    groups = [RowGroup("part", index, 10, 100) for index in range(40)]
    read = [
        {group for rank in schedule.windows for window in rank for group in window.groups}
        for steps in (0, 30, 39)
        for schedule in [plan(groups, Position(0, (Leg(2, 100, steps),) if steps else ()), 3, 90, window=30)]
    ]
    assert [len(groups) for groups in read] == [40, 10, 4]


def test_many_short_legs_do_not_pile_up() -> None:
    """What has to be read for an impression grows neither with the number of legs nor with their length."""
    groups = [RowGroup("part", index, 10, 100) for index in range(400)]
    random.seed(0)
    position = Position.start(0)
    for _ in range(100):
        position = position.after(3, workers := random.randint(1, 4), 80)
    schedule = plan(groups, position, workers + 1, 80, window=50)
    wanted = [group for rank in schedule.windows for window in rank for group in window.groups]
    assert sum(schedule.num_impressions) == 400 * 100 - 100 * 3 * 80
    assert len(wanted) == len(set(wanted)) < 400 - 100 * 3 * 80 / 100 + 40


def test_a_position_is_json_and_legs_of_the_same_kind_are_one() -> None:
    position = Position.start(3).after(5, 2, 64).after(0, 4, 64).after(6, 2, 64).after(1, 4, 64)
    assert position == Position(3, (Leg(2, 64, 11), Leg(4, 64, 1)))
    assert Position.from_json(json.loads(json.dumps(asdict(position)))) == position
