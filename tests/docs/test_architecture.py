"""The house in docs/architecture.md is the one that the import contracts state and that stands."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "architecture.md").read_text()


def contract_layers(container: str | None) -> list[set[str]]:
    """Layers from the top, of the project's folders or of the rooms of one of them."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers" and contract.get("containers") == (container and [container]):
            return [set(layer.split(" | ")) for layer in contract["layers"]]
    raise AssertionError(f"no layers of {container}")


def drawn_layers(container: str | None) -> list[set[str]]:
    tree = re.search(r"## The house.*?```\n(.*?)```", PAGE, re.S)
    assert tree
    lines = tree[1].splitlines()
    if container is None:
        return [set(line.split(" | ")) for line in lines if not line.startswith(" ")]
    inside = lines[lines.index(f"  {container}:") + 1 :]
    end = next((i for i, line in enumerate(inside) if not line.startswith("    ")), len(inside))
    return [set(line.strip().split(" | ")) for line in inside[:end]]


def test_the_tree_is_that_of_the_contracts() -> None:
    for container in (None, "jobs", "esmm"):
        assert drawn_layers(container) == contract_layers(container)


def test_every_room_is_in_the_tree() -> None:
    for container in ("jobs", "esmm"):
        rooms = {path.parent.name for path in (PROJECT / container).glob("*/__init__.py")}
        assert rooms <= set().union(*drawn_layers(container))


def test_the_modules_named_of_a_room_are_there() -> None:
    rows = re.findall(r"^\| `([a-z_]+(?:/[a-z_]+)?/)` \| (.*) \|$", PAGE, re.M)
    assert len(rows) > 10
    for room, text in rows:
        for module in re.findall(r"`([a-z_]+)`", text):
            assert (PROJECT / room / f"{module}.py").is_file(), f"{room}{module}"
