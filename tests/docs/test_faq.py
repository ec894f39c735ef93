"""The messages that docs/faq.md quotes are those of the code: every fixed part of one is a text in it."""

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "faq.md").read_text()
QUOTES = "".join(re.findall(r"^ {4}.*\n", PAGE, re.M))


def texts() -> str:
    """All texts of the code, those between the fillings of f-strings too, one on a line."""
    found = []
    for folder in ("cli", "storage", "schemas", "jobs", "esmm"):
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_messages_are_quoted_as_they_are_printed() -> None:
    known = texts()
    quoted = QUOTES.replace("error: ", "").replace("\n", "...")
    # `did_you_mean` has words of its own inside a message
    parts = [part.strip(" (:).?,") for part in re.split(r"\.\.\.| \((?=did you mean)", quoted)]
    words = [part for part in parts if re.search(r"[a-z]{3}", part)]
    assert len(words) > 30
    assert [part for part in words if part not in known] == []
