"""The 23 sparse fields of Ali-CCP, declared once.

Every other module derives its columns, offsets and parsers from `FIELDS`; its order is part of
the sample format.
"""

from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["user", "item", "cross", "context"]


@dataclass(frozen=True)
class Field:
    """One sparse field.

    name: as it stands in the raw logs. multi: a row may hold several values of it.
    weighted: its raw value is not constantly 1. buckets: default size of its hash range,
    bucket 0 (missing) included; at least twice the distinct ids of the full training half.
    """

    name: str
    side: Side
    multi: bool
    weighted: bool
    buckets: int
    meaning: str

    @property
    def per_impression(self) -> bool:
        """True where each impression has its own value; user fields are shared by a context."""
        return self.side != "user"

    @property
    def column(self) -> str:
        """Name of the field's id column in the samples."""
        return f"{self.side}_{self.name}"

    @property
    def weight_column(self) -> str:
        return f"{self.column}_weight"

    @property
    def length_column(self) -> str:
        """How many values each impression has; only for multi-valued per-impression fields."""
        return f"{self.column}_length"


FIELDS: tuple[Field, ...] = (
    Field("101", "user", False, False, 1 << 20, "user id"),
    Field("121", "user", False, False, 1 << 14, "profile category"),
    Field("122", "user", False, False, 1 << 12, "profile group"),
    Field("124", "user", False, False, 1 << 12, "gender"),
    Field("125", "user", False, False, 1 << 12, "age level"),
    Field("126", "user", False, False, 1 << 12, "consumption level I"),
    Field("127", "user", False, False, 1 << 12, "consumption level II"),
    Field("128", "user", False, False, 1 << 12, "working or not"),
    Field("129", "user", False, False, 1 << 12, "geography"),
    Field("109_14", "user", True, True, 1 << 15, "category ids of 14 days, ln(1+n)"),
    Field("110_14", "user", True, True, 1 << 23, "shop ids of 14 days, ln(1+n)"),
    Field("127_14", "user", True, True, 1 << 20, "brand ids of 14 days, ln(1+n)"),
    Field("150_14", "user", True, True, 1 << 18, "intention node ids of 14 days, ln(1+n/12)"),
    Field("205", "item", False, False, 1 << 23, "item id"),
    Field("206", "item", False, False, 1 << 15, "category id"),
    Field("207", "item", False, False, 1 << 21, "shop id"),
    Field("210", "item", True, False, 1 << 18, "intention node ids"),
    Field("216", "item", False, False, 1 << 19, "brand id"),
    Field("508", "cross", False, True, 1 << 15, "109_14 x 206, ln(1+n)"),
    Field("509", "cross", False, True, 1 << 20, "110_14 x 207, ln(1+n)"),
    Field("702", "cross", False, True, 1 << 19, "127_14 x 216, ln(1+n)"),
    Field("853", "cross", True, True, 1 << 18, "150_14 x 210, ln(1+n/12)"),
    Field("301", "context", False, False, 1 << 12, "position"),
)

FIELD_INDEX: dict[str, int] = {field.name: index for index, field in enumerate(FIELDS)}
USER_FIELDS: tuple[Field, ...] = tuple(f for f in FIELDS if not f.per_impression)
IMPRESSION_FIELDS: tuple[Field, ...] = tuple(f for f in FIELDS if f.per_impression)


def field_names(fields: Any) -> Any:
    """The keys of a mapping, or the values of a list, with fields as strings; anything else as it is.

    YAML reads a field without quotes as a number: 205 is clear, but 110_14 is 11014.
    """
    if isinstance(fields, dict):
        return dict(zip(field_names(list(fields)), fields.values(), strict=True))
    if not isinstance(fields, list | tuple):
        return fields
    names = [str(name) if type(name) is int else name for name in fields]
    meant = {name.replace("_", ""): name for name in FIELD_INDEX if "_" in name}
    unquoted = [f'"{meant[name]}" (YAML reads {name})' for name in names if name in meant]
    if unquoted:
        raise ValueError(f"put the field in quotes: {', '.join(unquoted)}")
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"field {', '.join(twice)} is named twice")
    return names
