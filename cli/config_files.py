"""Reading a configuration file: which sections there are, and all of its mistakes at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cli.errors import InputError
from schemas.fields import FIELD_INDEX

if TYPE_CHECKING:
    from pydantic import BaseModel

    ModelT = TypeVar("ModelT", bound=BaseModel)

# `samples` and `profile` belong to jobs, the others to esmm: one file configures a whole run.
SECTIONS = ("samples", "profile", "loader", "model", "loss", "optimizer", "train", "tracking")


def read_yaml(path: str) -> dict[str, Any]:
    """The sections of a YAML file; unknown sections are an `InputError`."""
    import yaml

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: configuration file not found.")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections {', '.join(SECTIONS)}, found {type(content).__name__}.")
    unknown = [str(name) for name in content if name not in SECTIONS]
    if unknown:
        raise InputError(f"{path}: unknown section {', '.join(unknown)}. Known: {', '.join(SECTIONS)}.")
    return content


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


def validate(model: "type[ModelT]", values: dict[str, Any], where: str) -> "ModelT":
    """Build a pydantic model; every mistake in `values` is named in one `InputError`."""
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        mistakes = []
        for item in error.errors():
            option = ".".join(str(part) for part in item["loc"])
            found = "" if item["type"] == "missing" else f", found {item['input']!r}"
            mistakes.append(f"  {option}: {item['msg']}{found}")
        raise InputError(
            f"{where}: {len(mistakes)} mistake(s) in the configuration:\n" + "\n".join(mistakes)
        ) from error
