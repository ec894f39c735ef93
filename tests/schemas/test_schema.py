"""A schema: what its file may say, what is told of mistakes in it, and Ali-CCP's, which is as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import InputError
from schemas import samples, schema_file
from schemas.fields import MOST_BUCKETS, SIDES, Field, Side
from schemas.numbers import MOST_QUANTILES, Number
from schemas.schema import OWN_COLUMNS, Schema, Tables
from tests.fixtures.ali_ccp import ALI_CCP

USER = {"name": "who", "side": "user", "buckets": 10}
ITEM = {"name": "what", "side": "item", "buckets": 20}
AGE = {"name": "age", "side": "user"}
Content = dict[str, Any]


def content(*fields: Any, **changes: Any) -> Content:
    """A schema of these fields as its file has it; without any it is in good order."""
    return {"name": "shop", "fields": list(fields or (USER, ITEM)), **changes}


def parsed(described: Any) -> Schema:
    return schema_file.parse(yaml.safe_dump(described, sort_keys=False).encode(), "shop.yaml")


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9]{0,8}", fullmatch=True).filter(lambda name: name != "id")


FINITE = st.floats(allow_nan=False, allow_infinity=False)
CLIPS = st.none() | st.tuples(FINITE, FINITE).map(sorted).filter(lambda two: two[0] < two[1]).map(tuple)
PARTS = st.none() | st.integers(2, MOST_QUANTILES)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Any schema: a user field, another one, and some more, in any order."""
    names = draw(st.lists(NAMES, min_size=2, max_size=9, unique=True))
    sides = ["user", draw(st.sampled_from(SIDES[1:])), *(draw(st.sampled_from(SIDES)) for _ in names[2:])]
    shuffled = zip(names, draw(st.permutations(sides)), strict=True)
    rest = {"multi": st.booleans(), "weighted": st.booleans(), "meaning": st.text()}
    buckets = st.integers(2, MOST_BUCKETS)
    fields = [
        draw(st.builds(Field, st.just(name), st.just(side), buckets, **rest)) for name, side in shuffled
    ]
    numbers = draw(
        st.lists(st.builds(_number, st.sampled_from(SIDES), CLIPS, st.booleans(), PARTS), max_size=3)
    )
    numbered = tuple(replace(number, name=f"{number.name}{place}") for place, number in enumerate(numbers))
    names_of = st.lists(st.text(min_size=1), max_size=2).map(tuple)
    tables = draw(st.none() | st.builds(Tables, weight=st.none() | st.text(min_size=1), actions=names_of))
    single = {side: [f.name for f in fields if f.side == side and not f.multi] for side in ("user", "item")}
    roles = {f"{side}_id": draw(st.sampled_from([None, *found])) for side, found in single.items()}
    return Schema(draw(st.text()), tuple(fields), **roles, tables=tables, numbers=numbered)


def _number(side: Side, clip: tuple[float, float] | None, log1p: bool, quantiles: int | None) -> Number:
    return Number("a_number", side, log1p=log1p, clip=clip, quantiles=quantiles)


@given(schemas())
def test_a_schema_comes_back_from_json_and_from_yaml(schema: Schema) -> None:
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert parsed(schema.to_dict()) == schema
    assert hash(parsed(schema.to_dict())) == hash(schema)


@given(schemas())
def test_user_fields_come_first_and_the_rest_keeps_the_order_of_the_file(schema: Schema) -> None:
    described = schema.to_dict()
    described["fields"].sort(key=lambda field: field["name"])
    found = parsed(described)
    users, others = (
        [f for f in found.fields if f.side == "user"],
        [f for f in found.fields if f.side != "user"],
    )
    assert found.fields == (*users, *others) == (*found.user_fields, *found.impression_fields)
    for side in (users, others):
        assert [f.name for f in side] == sorted(f.name for f in side)
    assert [found.fields[place].name for place in found.index.values()] == list(found.index)
    assert found.num_rows == sum(field.buckets for field in found.fields)


@given(schemas())
def test_no_two_columns_have_one_name(schema: Schema) -> None:
    names = [column.name for column in samples.columns(schema)]
    assert len(set(names)) == len(names)


def test_what_is_left_out_has_its_default() -> None:
    assert parsed(content()) == Schema("shop", (Field("who", "user", 10), Field("what", "item", 20)))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (content(USER, USER, ITEM), "field who is named twice"),
        (content(USER, ITEM | {"side": "items"}), "fields.what.side: .*'item'.*found 'items'"),
        (content(USER, ITEM | {"buckets": 1}), "fields.what: a field needs 2 to 2.31 - 1 buckets, found 1"),
        (content(USER, ITEM | {"buckets": 1 << 31}), "found 2147483648"),
        (content(USER, ITEM | {"bucket": 9}), r"what.bucket: there is no such option \(did you mean buckets"),
        (content(title="x", nam="x"), r"nam: there is no such option \(did you mean name"),
        (content(USER, {"name": "what", "side": "item"}), "fields.what.buckets: Field required"),
        (content(USER, {"side": "item", "buckets": 3}), "fields.1.name: Field required"),
        (content(USER, ITEM | {"name": "wh-at"}), "letters, digits and underscores.*found 'wh-at'"),
        (content(USER, ITEM | {"name": 205}), "fields.205.name: .*string, found 205"),
        (content(USER, 7), "fields.1: .*found 7"),
        (content(fields=7), "fields: .*found 7"),
        (content(user_id="whom"), "user_id: there is no field whom"),
        (content(user_id="what"), "user_id: expected a single-valued field of side user, found what"),
        (content(item_id="who"), "item_id: expected a single-valued field of side item, found who"),
        (content(USER | {"multi": True}, ITEM, user_id="who"), "user_id: expected a single-valued field"),
        (content(ITEM), "expected a user field and a field of another side"),
        (content(USER), "expected a user field and a field of another side"),
        (content(fields=[]), "expected a user field and a field of another side"),
        (
            content(USER, ITEM | {"name": "b", "weighted": True}, ITEM | {"name": "b_weight"}),
            "fields b and b_weight both make a column item_b_weight: rename one",
        ),
        (
            content(USER, ITEM | {"name": "b", "multi": True}, ITEM | {"name": "b_length"}),
            "fields b and b_length both make a column item_b_length: rename one",
        ),
        (content(USER | {"name": "id"}, ITEM), "field id makes a column user_id, which all samples have"),
        (content(USER, ITEM | {"max_length": 5}), "at least 1, of a multi field, found 5"),
        (content(USER, ITEM | {"multi": True, "max_length": 0}), "max_length: .*found 0"),
        (content(USER, ITEM | {"multi": True, "keep": "best"}), "what.keep: .*'best'"),
        (content(USER, ITEM | {"multi": True, "keep": "heaviest"}), "keep: expected first or last"),
        (content(numbers=[AGE, AGE]), "field age is named twice"),
        (content(numbers=[AGE | {"name": "who"}]), "field who is named twice"),
        (content(numbers=[AGE | {"side": "usr"}]), "numbers.age.side: .*found 'usr'"),
        (content(numbers=[AGE | {"multi": True}]), "numbers.age.multi: there is no such option"),
        (content(numbers=[AGE | {"clip": [2, 1]}]), r"clip: expected two numbers.*found \[2.0, 1.0\]"),
        (content(numbers=[AGE | {"clip": [1]}]), "numbers.age.clip.1: Field required"),
        (content(numbers=[AGE | {"clip": [0, float("inf")]}]), "clip: expected two numbers"),
        (content(numbers=[AGE | {"quantiles": 1}]), "quantiles: expected 2 to 1024 parts, found 1"),
        (content(numbers=[AGE | {"name": "id"}]), "field id makes a column user_id"),
        (content(numbers=[{"side": "user"}]), "numbers.0.name: Field required"),
        ([USER, ITEM], "expected a schema with name and fields, found list"),
        (None, "expected a schema with name and fields, found NoneType"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(described: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"^shop.yaml: (.|\n)*{message}"):
        parsed(described)


def test_all_mistakes_are_told_at_once() -> None:
    fields = (USER | {"side": "usr", "mult": True}, ITEM | {"buckets": 1}, ITEM | {"name": "_x"})
    with pytest.raises(InputError) as raised:
        parsed(content(*fields, nam="x"))
    lines = str(raised.value).splitlines()
    assert lines[0] == "shop.yaml: 5 mistake(s) in the schema:"
    for line, part in zip(lines[1:], ("who.side", "who.mult", "what", "_x", "nam"), strict=True):
        assert line.startswith("  ") and part in line
    with pytest.raises(InputError, match="(?s)who is named twice.*user_id: there is no field whom"):
        parsed(content(USER, USER, ITEM, user_id="whom"))


def test_a_file_that_holds_no_yaml_or_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text("fields: [")
    with pytest.raises(InputError, match=r"schema.yaml: expected YAML"):
        schema_file.read(str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"schema.yaml: expected YAML"):
        schema_file.read(str(path))
    with pytest.raises(InputError, match=r"gone.yaml: schema not found"):
        schema_file.read(str(tmp_path / "gone.yaml"))


def test_other_buckets_change_nothing_else() -> None:
    other = ALI_CCP.with_buckets({"205": 7})
    assert other.buckets == ALI_CCP.buckets | {"205": 7}
    assert other.with_buckets(ALI_CCP.buckets) == ALI_CCP


def test_the_columns_of_all_samples_are_kept_free() -> None:
    """Those that a field could have: its column begins with its side."""
    of_fields = {column for field in ALI_CCP.fields for column in field.columns}
    own = [column.name for column in samples.columns(ALI_CCP) if column.name not in of_fields]
    assert {name for name in own if name.split("_")[0] in SIDES} == set(OWN_COLUMNS)


def test_the_schema_that_comes_with_the_code_is_that_of_the_first_releases() -> None:
    """Where the fields stood in the code: samples and models from then still fit."""
    assert samples.fingerprint(ALI_CCP, hash_seed=0) == "0c801b77df029408"
    assert schema_file.read(None) == schema_file.read(schema_file.DEFAULT) == ALI_CCP
    assert (ALI_CCP.user_id, ALI_CCP.item_id) == ("101", "205")
