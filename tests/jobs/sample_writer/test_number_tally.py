"""Statistics of numbers that are tallied file by file, against numpy on all values at once."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.sample_writer.number_tally import NumberTally, statistics
from schemas.fields import Field
from schemas.numbers import Number
from schemas.schema import Schema

FIELDS = (Field("customer", "user", 10), Field("product", "item", 10))
VALUES = st.none() | st.floats(-1e6, 1e6, width=32)


def group_of(contexts: list[tuple[float | None, list[float | None]]]) -> pa.Table:
    """Samples' rows: a user's number, and that of each impression."""
    nan = float("nan")
    prices = [[nan if price is None else price for price in of_row] for _, of_row in contexts]
    return pa.table(
        {
            "user_age": pa.array([nan if age is None else age for age, _ in contexts], pa.float32()),
            "item_price": pa.array(prices, pa.list_(pa.float32())),
            "click": pa.array([[0] * len(of_row) for of_row in prices], pa.list_(pa.int8())),
        }
    )


def tallied(files: list[list[pa.Table]], *numbers: Number) -> dict[str, Any]:
    schema = Schema("drawn", FIELDS, numbers=numbers)
    tallies = []
    for groups in files:
        tally = NumberTally(schema)
        for group in groups:
            tally.add(group)
        tallies.append(tally.result())
    return {n.name: statistics(n, [tally[n.name] for tally in tallies]) for n in numbers}


CONTEXTS = st.lists(st.tuples(VALUES, st.lists(VALUES, min_size=1, max_size=4)), max_size=12)


@given(CONTEXTS, st.lists(st.integers(0, 12), max_size=4), st.booleans())
def test_however_the_rows_are_cut_into_files(contexts: list[Any], cuts: list[int], log1p: bool) -> None:
    bounds = sorted({0, len(contexts), *(min(cut, len(contexts)) for cut in cuts)})
    files = [[group_of(contexts[low:high])] for low, high in pairwise(bounds)]
    found = tallied(files, Number("age", "user", log1p=log1p), Number("price", "item", clip=(-10, 1000)))
    ages = np.array([age for age, of_row in contexts for _ in of_row if age is not None], np.float32)
    prices = [price for _, of_row in contexts for price in of_row]
    ages = ages.astype(np.float64)
    expected = {
        "age": np.array([np.sign(x) * np.log(1 + abs(x)) for x in ages]) if log1p else ages,
        "price": np.array([min(max(x, -10), 1000) for x in prices if x is not None]),
    }
    for name, values in expected.items():
        one = found[name]
        assert (one["values"], one["missing"]) == (len(values), len(prices) - len(values))
        if len(values):
            assert one["mean"] == pytest.approx(values.mean(), rel=1e-6, abs=1e-9)
            assert one["std"] == pytest.approx(values.std(), rel=1e-6, abs=1e-6)
            assert (one["min"], one["max"]) == pytest.approx((values.min(), values.max()))
        else:
            assert one == {**one, "mean": 0, "std": 0, "min": 0, "max": 0}


def test_quantiles_divide_the_values_into_parts_of_one_size() -> None:
    rng = np.random.default_rng(3)
    files = [rng.lognormal(size=size).astype(np.float32) for size in (40_000, 1_000, 9_000)]
    tables = [[group_of([(None, part.tolist()) for part in np.array_split(file, 7)])] for file in files]
    found = tallied(tables, Number("price", "item", log1p=True, quantiles=20))["price"]
    values = np.log1p(np.concatenate(files))
    parts = np.bincount(np.searchsorted(found["bounds"], values, side="right"), minlength=20)
    assert len(found["bounds"]) == 19
    assert parts / len(values) == pytest.approx(np.full(20, 0.05), abs=0.002)


def test_a_number_of_few_values_has_fewer_parts() -> None:
    found = tallied([[group_of([(None, [1.0, 1.0, 1.0, 2.0])])]], Number("price", "item", quantiles=8))
    assert found["price"]["bounds"] == sorted(set(found["price"]["bounds"]))
    assert set(found["price"]["bounds"]) <= {1.0, 2.0}


def test_numbers_that_are_all_missing_have_no_parts() -> None:
    found = tallied([[group_of([(None, [None])])], []], Number("price", "item", quantiles=8))["price"]
    assert found == {
        "values": 0, "missing": 1, "mean": 0.0, "std": 0.0, "min": 0.0, "max": 0.0, "bounds": [],
    }  # fmt: skip
