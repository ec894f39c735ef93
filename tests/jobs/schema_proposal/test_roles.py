"""What columns are taken for by their names and counts; sizes."""

import pytest
from pyspark.sql import types as T

from jobs.schema_proposal import roles
from jobs.schema_proposal.columns import Column, columns_of, unquoted
from jobs.schema_proposal.making import fit_name
from jobs.schema_proposal.roles import Facts
from jobs.schema_proposal.sizes import buckets_for, ids_of_all
from jobs.schema_proposal.statistics import Stats
from schemas.fields import NAME


def facts(name: str, mean: float = 0.5, distinct: int = 2, unique: bool = False, high: float = 1.0) -> Facts:
    stats = Stats(1000, 0, 1000, distinct, distinct, 1, 0.0, high, mean, unique)
    return Facts(Column(name, "id", "int", is_whole=True), stats)


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        (
            roles.USER,
            ["user_id", "userId", "UserID", "customer", "member_no", "uid"],
            ["user_age", "customer_segment"],
        ),
        (
            roles.ITEM,
            ["item", "shown_product_id", "adId", "goods_sku"],
            ["item_price", "product_category", "load"],
        ),
        (
            roles.CONTEXT,
            ["session_id", "requestId", "page_view_id", "search"],
            ["session_length", "context_text"],
        ),
        (roles.SAMPLE, ["id", "impression_id", "event_uuid"], ["impressions_before", "grid"]),
        (roles.CLICK, ["click", "is_clicked", "clk"], ["quick_clack"]),
        (roles.CONVERSION, ["conversion", "bought", "is_purchased", "order"], ["border", "payload"]),
    ],
)
def test_names(pattern, names: list[str], others: list[str]) -> None:
    assert [name for name in names if not roles.is_called(name, pattern)] == []
    assert [name for name in others if roles.is_called(name, pattern)] == []


def test_labels_without_telling_names_are_a_pair_of_which_one_needs_the_other() -> None:
    options = [facts("a", 0.1), facts("b", 0.02), facts("new", 0.5)]
    above = {("a", "b"): 0, ("b", "a"): 80, ("a", "new"): 450, ("new", "a"): 50}
    above |= {("b", "new"): 490, ("new", "b"): 10}
    click, conversion = roles.labels(options, above)
    assert (click.source, conversion.source) == ("a", "b")
    assert "guessed" in click.note and "guessed" in conversion.note


def test_named_labels_are_taken_with_their_dirt_and_a_click_may_be_alone() -> None:
    click, buy = facts("click", 0.1), facts("bought", 0.05)
    above = {("click", "bought"): 30, ("bought", "click"): 80}
    found = roles.labels([click, buy], above)
    assert [guess.source for guess in found] == ["click", "bought"]
    assert found[1].note.startswith("30 rows without a click")
    found = roles.labels([click], {})
    assert [guess.source for guess in found] == ["click", None]
    assert [guess.source for guess in roles.labels([], {})] == [None, None]


def test_the_key_of_two_tables_is_one_that_both_have() -> None:
    session, user = facts("session", unique=True, distinct=900), facts("user", unique=True, distinct=800)
    visit = facts("visit", distinct=500)
    own = [facts("session"), facts("user"), facts("visit"), facts("item")]
    assert roles.context_of_two(own, [user, session, visit]).source == "session"
    assert roles.context_of_two(own, [visit, user]).source == "user"
    found = roles.context_of_two(own, [visit])
    assert found.source == "visit" and found.note
    assert roles.context_of_two([facts("item")], [session]).source is None


def test_sizes() -> None:
    assert [buckets_for(ids) for ids in (0, 1, 32, 33, 100, 128, 129, 1 << 50)] == [
        64, 64, 64, 128, 256, 256, 512, 1 << 30,
    ]  # fmt: skip
    read = Stats(1000, 0, 1000, distinct=100, of_half=100)
    assert ids_of_all(read, 1_000_000) == 100  # all are known by half of the rows
    assert ids_of_all(read._replace(of_half=50), 8000) == 800  # each row brings new ones
    assert ids_of_all(read._replace(of_half=50), 1000) == 100


def test_columns_by_their_types() -> None:
    pair = T.StructType([T.StructField("id", T.StringType()), T.StructField("w", T.FloatType())])
    kinds: dict[str, tuple[T.DataType, str]] = {
        "a": (T.LongType(), "id"),
        "b": (T.ArrayType(T.StringType()), "ids"),
        "c": (T.ArrayType(pair), "weighted"),
        "d": (T.MapType(T.IntegerType(), T.DecimalType()), "weighted"),
        "e": (T.DecimalType(), "number"),
        "f": (T.ArrayType(T.DoubleType()), "weights"),
        "g": (T.BooleanType(), "flag"),
        "h": (T.ArrayType(T.ArrayType(T.StringType())), "other"),
        "i": (T.MapType(T.StringType(), T.StringType()), "other"),
        "j": (T.BinaryType(), "other"),
    }
    table = T.StructType([T.StructField(name, kind) for name, (kind, _) in kinds.items()])
    assert [column.kind for column in columns_of(table)] == [kind for _, kind in kinds.values()]
    assert [column.source for column in columns_of(T.StructType([T.StructField("x y", pair)]))] == [
        "`x y`.id",
        "`x y`.w",
    ]


@pytest.mark.parametrize("name", ["a", "a.b", "a`b", "ü", "_x", "a.b`.c", "x y"])
def test_names_of_columns_become_names_of_fields(name: str) -> None:
    [column] = columns_of(T.StructType([T.StructField(name, T.LongType())]))
    assert unquoted(column.source) == name
    assert NAME.fullmatch(fit_name(column.source))
