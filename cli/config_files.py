"""Reading a configuration file: which sections there are, and all of its mistakes at once."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from cli.errors import InputError
from cli.nearest import did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel

    ModelT = TypeVar("ModelT", bound=BaseModel)

# The first three belong to jobs, the others to esmm: one file configures a whole run.
SECTIONS = (
    *("samples", "profile", "evaluate"),
    *("loader", "model", "loss", "optimizer", "train", "tracking", "promotion"),
)


def read_yaml(path: str) -> dict[str, Any]:
    """The sections of a YAML file; unknown sections are an `InputError`."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: configuration file not found.")
    content = parse_yaml(file.read_bytes(), path) or {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections {', '.join(SECTIONS)}, found {type(content).__name__}.")
    unknown = [f"{name}{did_you_mean(str(name), SECTIONS)}" for name in content if name not in SECTIONS]
    if unknown:
        raise InputError(f"{path}: unknown section {', '.join(unknown)}. Known: {', '.join(SECTIONS)}.")
    return content


def parse_yaml(text: bytes, path: str) -> Any:
    """What a YAML file holds. path: where it lies, for messages."""
    import yaml

    try:
        return yaml.safe_load(text.decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected YAML: {error}") from error


def load_section(path: str | None, name: str, model: "type[ModelT]", context: Any = None) -> "ModelT":
    """One section of a YAML file as its model, or the defaults without a file. context: of its validators."""
    section = read_yaml(path).get(name) if path else None
    if section is not None and not isinstance(section, dict):
        raise InputError(f"{path}: section {name}: expected options, found {type(section).__name__}.")
    return validate(model, section or {}, f"{path or 'defaults'}, section {name}", context)


def validate(model: "type[ModelT]", values: dict[str, Any], where: str, context: Any = None) -> "ModelT":
    """Build a pydantic model; every mistake in `values` is named in one `InputError`."""
    from pydantic import ValidationError

    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        lines = mistakes(error.errors(), model)
        raise InputError(
            f"{where}: {len(lines)} mistake(s) in the configuration:\n" + "\n".join(lines)
        ) from error


def mistakes(errors: Sequence[Any], model: type) -> list[str]:
    """pydantic's errors about a model or a dataclass, a line each."""
    return [_mistake(model, item) for item in errors]


def _mistake(model: type, item: Any) -> str:
    """One of pydantic's errors as a line: the option, what is expected, what was found."""
    option = ".".join(str(part) for part in item["loc"])
    expected = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        names = _options(model, item["loc"][:-1])
        expected = f"there is no such option{did_you_mean(str(item['loc'][-1]), names)}"
    told = item["type"] in ("missing", "value_error") and isinstance(item["input"], dict)
    found = "" if told else f", found {item['input']!r}"
    return f"  {option}: {expected}{found}" if option else f"  {expected}{found}"


def _options(model: type, path: tuple[int | str, ...]) -> list[str]:
    """The names of the options of a section inside a model; a place in a list says nothing of them."""
    for part in path:
        annotation = _annotations(model).get(str(part))
        parts = (annotation, *get_args(annotation))
        model = next((each for each in parts if isinstance(each, type) and _annotations(each)), model)
    return list(_annotations(model))


def _annotations(model: type) -> dict[str, Any]:
    """By option of a pydantic model or of a dataclass: its type."""
    if hasattr(model, "model_fields"):
        return {name: option.annotation for name, option in model.model_fields.items()}
    return {option.name: option.type for option in fields(model)} if is_dataclass(model) else {}
