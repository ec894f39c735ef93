"""A schema: the fields of some logs, and which of them are the user's and the item's.

It is read from a YAML file once (`schemas.schema_file`), travels as a value to where it is used, and is
written into everything that is made with it: `to_dict` and `from_dict`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from schemas.fields import Field
from schemas.numbers import Number

OWN_COLUMNS = ("context_id", "user_id")  # of all samples, whatever the fields (`schemas.samples`)


IdType = Literal["int64", "string"]


@dataclass(frozen=True)
class Tables:
    """Logs as tables: which columns hold what is no field.

    Impressions name their context by the column context_id, which the contexts have too. sample_id_type,
    user_id_type: whether samples and predictions keep these ids as whole numbers of at least 0 or as text.
    weight: of impressions, how much each counts in training; None: they all count 1. actions: of clicked
    impressions, what leads to a conversion, such as putting into a cart; samples keep whether there was any.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for schemas.schema_file

    context_id: str = "context_id"
    sample_id: str = "sample_id"
    click: str = "click"
    conversion: str = "conversion"
    weight: str | None = None
    actions: tuple[str, ...] = ()
    sample_id_type: IdType = "int64"
    user_id_type: IdType = "int64"


@dataclass(frozen=True)
class Schema:
    """The fields of some logs, those of the user first; else in the order in which the file has them.

    The order is part of the sample format. user_id, item_id: the fields whose raw ids name the user and
    the item; None where there is no such field. The user's is kept in samples and predictions.
    tables: of logs that are tables; None: they are text, as Ali-CCP's are. numbers: fields that are numeric
    and no ids; in the same order.

    Raises ValueError for fields that do not go together.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for schemas.schema_file

    name: str
    fields: tuple[Field, ...]
    user_id: str | None = None
    item_id: str | None = None
    tables: Tables | None = None
    numbers: tuple[Number, ...] = ()

    def __post_init__(self) -> None:
        for kind in ("fields", "numbers"):
            ordered = tuple(sorted(getattr(self, kind), key=lambda field: field.per_impression))
            object.__setattr__(self, kind, ordered)
        if mistakes := _mistakes(self):
            raise ValueError("; ".join(mistakes))

    @property
    def sample_id_type(self) -> IdType:
        return self.tables.sample_id_type if self.tables else "int64"

    @property
    def user_id_type(self) -> IdType:
        return self.tables.user_id_type if self.tables else "int64"

    @cached_property
    def user_fields(self) -> tuple[Field, ...]:
        """What the impressions of a context share."""
        return tuple(field for field in self.fields if not field.per_impression)

    @cached_property
    def impression_fields(self) -> tuple[Field, ...]:
        """What each impression has of its own: the item, cross and context fields."""
        return tuple(field for field in self.fields if field.per_impression)

    @cached_property
    def user_numbers(self) -> tuple[Number, ...]:
        """Numeric fields that the impressions of a context share."""
        return tuple(number for number in self.numbers if not number.per_impression)

    @cached_property
    def impression_numbers(self) -> tuple[Number, ...]:
        """Numeric fields that each impression has of its own."""
        return tuple(number for number in self.numbers if number.per_impression)

    @property
    def has_weights(self) -> bool:
        """Whether impressions have weights."""
        return self.tables is not None and self.tables.weight is not None

    @property
    def has_actions(self) -> bool:
        """Whether clicked impressions have actions."""
        return self.tables is not None and bool(self.tables.actions)

    @cached_property
    def index(self) -> dict[str, int]:
        """Place of each field in `fields`, by name."""
        return {field.name: place for place, field in enumerate(self.fields)}

    @cached_property
    def buckets(self) -> dict[str, int]:
        """Size of each field's hash range, by name."""
        return {field.name: field.buckets for field in self.fields}

    @property
    def num_rows(self) -> int:
        """Rows of the fused embedding table, one for each bucket of each field."""
        return sum(self.buckets.values())

    def with_buckets(self, buckets: Mapping[str, int]) -> Self:
        """The same with other sizes for some of the fields."""
        resized = (replace(field, buckets=buckets.get(field.name, field.buckets)) for field in self.fields)
        return replace(self, fields=tuple(resized))

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; `from_dict` makes the schema of it again."""
        content = asdict(self)
        numbers = [{**one, "clip": one["clip"] and list(one["clip"])} for one in content["numbers"]]
        tables = content["tables"] and {**content["tables"], "actions": list(content["tables"]["actions"])}
        return {**content, "fields": list(content["fields"]), "numbers": numbers, "tables": tables}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The schema that `to_dict` has described."""
        fields = tuple(Field(**field) for field in content["fields"])
        numbers = tuple(Number(**number) for number in content.get("numbers", ()))
        tables = _tables(content["tables"]) if content.get("tables") else None
        return cls(**{**content, "fields": fields, "numbers": numbers, "tables": tables})


def _tables(content: Mapping[str, Any]) -> Tables:
    return Tables(**{**content, "actions": tuple(content.get("actions", ()))})


def differences(old: Schema, new: Schema) -> list[str]:
    """What columns, buckets and numbers of samples depend on and is not the same, field by field; [] where
    all is."""
    found = _all_changes("field", old.fields, new.fields, ("side", "multi", "weighted", "buckets"))
    found += _all_changes("number", old.numbers, new.numbers, ("side", "log1p", "clip", "quantiles"))
    return found + _changes(old, new, ("sample_id_type", "user_id_type", "has_weights"))


def _all_changes(
    kind: str, old: Sequence[Field | Number], new: Sequence[Field | Number], attributes: tuple[str, ...]
) -> list[str]:
    before = {field.name: field for field in old}
    after = {field.name: field for field in new}
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    found = [f"{kind}s removed: {', '.join(removed)}"] if removed else []
    found += [f"{kind}s added: {', '.join(added)}"] if added else []
    for name in [name for name in before if name in after]:
        if changes := _changes(before[name], after[name], attributes):
            found.append(f"{kind} {name}: {', '.join(changes)}")
    if not found and list(before) != list(after):
        found.append(f"{kind}s in another order: {', '.join(after)}")
    return found


def _changes(old: object, new: object, attributes: tuple[str, ...]) -> list[str]:
    """Those of the attributes that are not the same."""
    pairs = ((what, getattr(old, what), getattr(new, what)) for what in attributes)
    return [f"{what} {before} -> {after}" for what, before, after in pairs if before != after]


def _mistakes(schema: Schema) -> list[str]:
    """What is wrong with the fields of a schema taken together."""
    every: tuple[Field | Number, ...] = (*schema.fields, *schema.numbers)
    names = [field.name for field in every]
    mistakes = [f"field {name} is named twice" for name in sorted(set(names)) if names.count(name) > 1]
    if not schema.user_fields or not schema.impression_fields:
        mistakes.append("expected a user field and a field of another side at least")
    columns = [column for field in every for column in field.columns]
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        owners = sorted({field.name for field in every if column in field.columns})
        if len(owners) > 1:
            mistakes.append(f"fields {' and '.join(owners)} both make a column {column}: rename one")
    for field in every:
        if field.column in OWN_COLUMNS:
            mistakes.append(
                f"field {field.name} makes a column {field.column}, which all samples have: rename it"
            )
    for role, name, side in (("user_id", schema.user_id, "user"), ("item_id", schema.item_id, "item")):
        if name is not None:
            mistakes += _role_mistakes(schema, role, name, side)
    return mistakes


def _role_mistakes(schema: Schema, role: str, name: str, side: str) -> list[str]:
    found = [field for field in schema.fields if field.name == name]
    if not found:
        return [f"{role}: there is no field {name}"]
    if found[0].side != side or found[0].multi:
        return [f"{role}: expected a single-valued field of side {side}, found {name}"]
    return []
