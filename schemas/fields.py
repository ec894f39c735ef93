"""One field of the logs: what a schema says of it. `schemas.schema` has all of them."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

Side = Literal["user", "item", "cross", "context"]

Keep = Literal["first", "last", "heaviest"]

SIDES: tuple[str, ...] = get_args(Side)
NAME = re.compile(r"[A-Za-z0-9]\w*", re.ASCII)
MOST_BUCKETS = (1 << 31) - 1  # buckets are 32 bits wide


@dataclass(frozen=True)
class Sided:
    """What fields of ids and numeric ones have in common; ValueError for a name that makes no column."""

    name: str
    side: Side

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"a field's name is letters, digits and underscores and begins with no underscore, "
                f"found {self.name!r}"
            )

    @property
    def per_impression(self) -> bool:
        """True where each impression has its own value; user fields are shared by a context."""
        return self.side != "user"

    @property
    def column(self) -> str:
        """Name of the column of its ids, or numbers, in the samples."""
        return f"{self.side}_{self.name}"


@dataclass(frozen=True)
class Field(Sided):
    """One sparse field.

    name: as it stands in the raw logs. multi: a row may hold several values of it. weighted: its values
    have weights; in a field that is not weighted they all count 1. buckets: size of its hash range, bucket
    0 (missing) included; twice the distinct ids of the training logs or more keeps collisions rare.
    max_length: of a list in a table; what is beyond it is left out, and keep says what stays: the first ids,
    the last ones or, in a weighted list, the heaviest.
    source: the column of a table that has it, by default that of its name; of a weighted list of structs
    (id, weight) or a map of ids to weights, both. weight_source: the column with the weights else.

    Raises ValueError for what no field can be.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for schemas.schema_file

    buckets: int
    multi: bool = False
    weighted: bool = False
    source: str | None = None
    weight_source: str | None = None
    meaning: str = ""
    max_length: int | None = None
    keep: Keep = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.buckets <= MOST_BUCKETS:
            raise ValueError(f"a field needs 2 to 2^31 - 1 buckets, found {self.buckets}")
        if self.weight_source and not self.weighted:
            raise ValueError(
                f"weight_source: expected it of weighted fields only, found {self.weight_source}"
            )
        if self.max_length is not None and (self.max_length < 1 or not self.multi):
            raise ValueError(f"max_length: expected at least 1, of a multi field, found {self.max_length}")
        if self.keep == "heaviest" and not self.weighted:
            raise ValueError("keep: expected first or last, as the field has no weights, found heaviest")

    @property
    def weight_column(self) -> str:
        return f"{self.column}_weight"

    @property
    def length_column(self) -> str:
        """How many values each impression has; only for multi-valued per-impression fields."""
        return f"{self.column}_length"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all of the field's columns in the samples."""
        lengths = (self.length_column,) if self.multi and self.per_impression else ()
        weights = (self.weight_column,) if self.weighted else ()
        return (self.column, *lengths, *weights)
