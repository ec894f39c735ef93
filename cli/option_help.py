"""What a configuration file may say: every option with its values, default and meaning, from pydantic models.

The meaning is the option's docstring (`use_attribute_docstrings`), the values are those the model checks.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic import BaseModel

WIDTH = 100
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true | false",
    "null": "null",
}


class Option(NamedTuple):
    """One option of a configuration.

    name: as `--set` writes it. values: in words. default: as YAML writes it. meaning: empty if not given.
    """

    name: str
    values: str
    default: str
    meaning: str


def options_of(section: str, model: "type[BaseModel]") -> list[Option]:
    """The options of a section and of the sections in it, in the order of the file."""
    schema = model.model_json_schema()
    return list(_options(f"{section}.", schema, schema.get("$defs", {})))


def _options(prefix: str, schema: dict[str, Any], parts: dict[str, Any]) -> Iterator[Option]:
    for key, option in schema["properties"].items():
        name = prefix + key
        inner = _inner(option)
        if "$ref" not in option:
            yield Option(name, _values(option), _default(option), option.get("description", ""))
        if inner:
            yield from _options(f"{name}.", parts[inner.rpartition("/")[2]], parts)


def _inner(option: dict[str, Any]) -> str | None:
    """Where the schema of an option stands that is a section itself, be it one that may be null."""
    alternatives = [option, *option.get("anyOf", ())]
    return next((each["$ref"] for each in alternatives if "$ref" in each), None)


def _values(option: dict[str, Any]) -> str:
    """What an option may be: `integer > 0`, `none | linear | cosine`, `number from 0 to 1 or null`."""
    match option:
        case {"anyOf": alternatives}:
            return " or ".join(map(_values, alternatives))
        case {"$ref": _}:
            return "section"
        case {"enum": names}:
            return " | ".join(names)
        case {"const": name}:
            return str(name)
        case {"prefixItems": items}:
            return f"[{', '.join(map(_values, items))}]"
        case {"items": item}:
            return f"list of {_values(item)}"
        case {"additionalProperties": value}:
            return f"by field: {_values(value)}"
    return f"{TYPES[option['type']]} {_range(option)}".strip()


def _range(option: dict[str, Any]) -> str:
    if "minimum" in option and "maximum" in option:
        return f"from {_bound(option['minimum'])} to {_bound(option['maximum'])}"
    return " and ".join(f"{sign} {_bound(option[key])}" for key, sign in BOUNDS.items() if key in option)


def _bound(number: float) -> str:
    """A bound as people write it: powers of two above a million are too long."""
    power = int(number).bit_length() - 1
    return f"2^{power}" if number > 1_000_000 and number == 1 << power else f"{number:g}"


def _default(option: dict[str, Any]) -> str:
    """The default as one line of YAML; a mapping without a default is empty."""
    import yaml

    default = option.get("default", {})
    return yaml.safe_dump(default, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def help_text(sections: "dict[str, type[BaseModel]]") -> str:
    """All options for a terminal of `WIDTH` columns."""
    blocks = []
    for section, model in sections.items():
        lines = [f"{section}:"]
        for option in options_of(section, model):
            head = f"{option.name} = {option.default}    ({option.values})"
            lines += textwrap.wrap(head, WIDTH, initial_indent=" " * 2, subsequent_indent=" " * 6)
            lines += textwrap.wrap(
                option.meaning, WIDTH - 6, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def add_help_options(parser: argparse.ArgumentParser, sections: "dict[str, type[BaseModel]]") -> None:
    """Give a command `--help-options`, which shows what these sections of its configuration may say."""
    parser.add_argument(
        "--help-options",
        action=_HelpOptions,
        sections=sections,
        help="show every option of --config and exit",
    )


class _HelpOptions(argparse.Action):
    def __init__(self, sections: "dict[str, type[BaseModel]]", **options: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **options)
        self.sections = sections

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        # at once, so that `| head` does not close the pipe between text and line end
        sys.stdout.write(f"{help_text(self.sections)}\n")
        parser.exit()
