"""What two schemas say differently, as messages name it."""

from dataclasses import replace

import pytest

from schemas import samples
from schemas.fields import Field
from schemas.numbers import Number
from schemas.schema import Schema, Tables, differences
from tests.fixtures.shop import SHOP, SHOP_OF_TEXT

CUSTOMER, TASTES, PRODUCT, TAGS = SHOP.fields
AGE, PRICE = Number("age", "user"), Number("price", "item", log1p=True)
LIKES = replace(TASTES, name="likes")


def shop(*fields: Field) -> Schema:
    return Schema("shop", fields)


def test_the_same_fields_do_not_differ_whatever_they_are_said_to_mean() -> None:
    assert differences(SHOP, replace(SHOP, name="other", user_id=None, item_id=None)) == []
    assert differences(SHOP, shop(replace(CUSTOMER, meaning="who buys"), TASTES, PRODUCT, TAGS)) == []
    assert differences(SHOP, Schema.from_dict(SHOP.to_dict())) == []
    assert differences(SHOP, replace(SHOP, tables=Tables(context_id="session"))) == []


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (shop(CUSTOMER, PRODUCT), ["fields removed: tastes, tags"]),
        (shop(*SHOP.fields, Field("hour", "context", 25)), ["fields added: hour"]),
        (shop(CUSTOMER, LIKES, PRODUCT, TAGS), ["fields removed: tastes", "fields added: likes"]),
        (SHOP.with_buckets({"product": 51}), ["field product: buckets 50 -> 51"]),
        (
            shop(CUSTOMER, PRODUCT, replace(TASTES, side="item", weighted=False), replace(TAGS, multi=False)),
            ["field tastes: side user -> item, weighted True -> False", "field tags: multi True -> False"],
        ),
        (shop(CUSTOMER, TASTES, TAGS, PRODUCT), ["fields in another order: customer, tastes, tags, product"]),
        (SHOP_OF_TEXT, ["sample_id_type int64 -> string", "user_id_type int64 -> string"]),
        (
            replace(SHOP_OF_TEXT, fields=(CUSTOMER, PRODUCT), tables=Tables(user_id_type="string")),
            ["fields removed: tastes, tags", "user_id_type int64 -> string"],
        ),
        (
            replace(SHOP, numbers=(AGE, PRICE), tables=Tables(weight="importance", actions=("cart",))),
            ["numbers added: age, price", "has_weights False -> True"],
        ),
    ],
)
def test_each_field_and_id_that_differs_is_named(new: Schema, expected: list[str]) -> None:
    assert differences(SHOP, new) == expected


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (replace(AGE, log1p=True), "number age: log1p False -> True"),
        (replace(AGE, clip=(0, 99), quantiles=4), "number age: clip None -> (0, 99), quantiles None -> 4"),
        (replace(AGE, side="item"), "number age: side user -> item"),
    ],
)
def test_what_is_made_of_a_number_is_part_of_the_samples(new: Number, expected: str) -> None:
    old, changed = (replace(SHOP, numbers=(number, PRICE)) for number in (AGE, new))
    assert expected in differences(old, changed)
    assert samples.fingerprint(old, 0) != samples.fingerprint(changed, 0)
    assert samples.fingerprint(old, 0) == samples.fingerprint(
        replace(old, numbers=(replace(AGE, meaning="in years", source="years"), PRICE)), 0
    )
