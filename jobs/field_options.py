"""Options of a configuration that name fields: they are those of the schema that the configuration is for.

The schema is the context of pydantic's validation; without one any name will do.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from schemas.schema import Schema

ANY = "any"  # the limit of every field that has none of its own
FieldsT = TypeVar("FieldsT", bound=Iterable[str])


def _names(info: ValidationInfo) -> list[str]:
    schema: Schema | None = info.context
    return [] if schema is None else list(schema.index)


def without_quotes(fields: Any, info: ValidationInfo) -> Any:
    """The keys of a mapping, or the values of a list, with fields as strings; anything else as it is.

    YAML reads a field without quotes as a number: 12 is clear, but 12_34 is 1234.
    """
    if isinstance(fields, dict):
        return dict(zip(without_quotes(list(fields), info), fields.values(), strict=True))
    if not isinstance(fields, list | tuple):
        return fields
    names = [str(name) if type(name) is int else name for name in fields]
    meant = {name.replace("_", ""): name for name in _names(info) if name[:1].isdigit() and "_" in name}
    unquoted = [f'"{meant[name]}" (YAML reads {name})' for name in names if name in meant]
    if unquoted:
        raise ValueError(f"put the field in quotes: {', '.join(unquoted)}")
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"field {', '.join(twice)} is named twice")
    return names


def known(fields: FieldsT, info: ValidationInfo) -> FieldsT:
    """The same, if all of them are fields of the schema."""
    return _require(fields, _names(info))


def known_or_any(fields: FieldsT, info: ValidationInfo) -> FieldsT:
    """The same, if all of them are fields of the schema or `any`."""
    names = _names(info)
    return _require(fields, names and [ANY, *names])


def _require(fields: FieldsT, names: list[str]) -> FieldsT:
    unknown = [name for name in fields if names and name not in names]
    if unknown:
        raise ValueError(f"unknown field {', '.join(unknown)}; known: {', '.join(names)}")
    return fields


NamesFields = BeforeValidator(without_quotes)
KnownFields = AfterValidator(known)
KnownOrAny = AfterValidator(known_or_any)
