"""Schemas as YAML files: `read` checks one and names all of its mistakes, `default` is Ali-CCP's."""

from argparse import ArgumentParser
from functools import lru_cache
from importlib.abc import ResourceLoader
from pathlib import Path
from typing import Any, cast

from cli.config_files import mistakes, parse_yaml
from cli.errors import InputError
from schemas.schema import Schema

DEFAULT = "configs/schemas/ali_ccp.yaml"
PROJECT = Path(__file__).parents[1]  # or the archive that the code has come in


def add_option(parser: ArgumentParser) -> None:
    """The option --schema, the same in all commands that have it."""
    parser.add_argument(
        "--schema", metavar="FILE", help=f"YAML file that describes the fields; default: {DEFAULT}"
    )


def read(path: str | None) -> Schema:
    """The schema of a YAML file, the default one without a file; all mistakes come in one `InputError`."""
    if path is None:
        return default()
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: schema not found.")
    return parse(file.read_bytes(), path)


@lru_cache(maxsize=1)
def default() -> Schema:
    """Ali-CCP's schema, which comes with the code: also from an archive on Python's path."""
    loader = cast(ResourceLoader, __spec__.loader)
    return parse(loader.get_data(str(PROJECT / DEFAULT)), DEFAULT)


def parse(text: bytes, path: str) -> Schema:
    """The schema that a text describes. path: where it comes from, for messages."""
    from pydantic import TypeAdapter, ValidationError

    content: Any = parse_yaml(text, path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a schema with name and fields, found {type(content).__name__}.")
    try:
        return TypeAdapter(Schema).validate_python(content)
    except ValidationError as error:
        lines = mistakes([{**item, "loc": _named(item["loc"], content)} for item in error.errors()], Schema)
        raise InputError(f"{path}: {len(lines)} mistake(s) in the schema:\n" + "\n".join(lines)) from error


def _named(place: tuple[int | str, ...], content: dict[str, Any]) -> tuple[int | str, ...]:
    """Where a mistake is, with the field's name, if it has one, instead of its number."""
    if len(place) < 2 or not isinstance(place[1], int):
        return place
    field = content[str(place[0])][place[1]]
    name = field.get("name", place[1]) if isinstance(field, dict) else place[1]
    return place[0], f"{name}", *place[2:]
