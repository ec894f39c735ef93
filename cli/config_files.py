"""Reading a configuration file: which sections there are, and all of its mistakes at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from cli.errors import InputError
from cli.nearest import did_you_mean

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
    unknown = [f"{name}{did_you_mean(str(name), SECTIONS)}" for name in content if name not in SECTIONS]
    if unknown:
        raise InputError(f"{path}: unknown section {', '.join(unknown)}. Known: {', '.join(SECTIONS)}.")
    return content


def load_section(path: str | None, name: str, model: "type[ModelT]") -> "ModelT":
    """One section of a YAML file as its model, or the defaults without a file."""
    section = read_yaml(path).get(name) if path else None
    if section is not None and not isinstance(section, dict):
        raise InputError(f"{path}: section {name}: expected options, found {type(section).__name__}.")
    return validate(model, section or {}, f"{path or 'defaults'}, section {name}")


def validate(model: "type[ModelT]", values: dict[str, Any], where: str) -> "ModelT":
    """Build a pydantic model; every mistake in `values` is named in one `InputError`."""
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        mistakes = [_mistake(model, item) for item in error.errors()]
        raise InputError(
            f"{where}: {len(mistakes)} mistake(s) in the configuration:\n" + "\n".join(mistakes)
        ) from error


def _mistake(model: "type[BaseModel]", item: Any) -> str:
    """One of pydantic's errors as a line: the option, what is expected, what was found."""
    option = ".".join(str(part) for part in item["loc"])
    expected = item["msg"]
    if item["type"] == "extra_forbidden":
        names = _options(model, item["loc"][:-1])
        expected = f"there is no such option{did_you_mean(str(item['loc'][-1]), names)}"
    found = "" if item["type"] == "missing" else f", found {item['input']!r}"
    return f"  {option}: {expected}{found}"


def _options(model: "type[BaseModel]", path: tuple[int | str, ...]) -> list[str]:
    """The names of the options of a section inside a model."""
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        sections = (each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields"))
        model = next(sections)
    return list(model.model_fields)
