"""Numbers as text; a missing one as its reason."""

from collections.abc import Mapping
from typing import Any

MISSING = "–"


def number(value: float | None, form: str = ".4f") -> str:
    """A number, or a dash."""
    return MISSING if value is None else format(value, form)


def interval(found: Mapping[str, Any], form: str = ".4f") -> str:
    """`0.7440 to 0.7514`, or why there is none."""
    if found["low"] is None or found["high"] is None:
        return "" if found["value"] is None else str(found.get("reason", "no interval"))
    return f"{found['low']:{form}} to {found['high']:{form}}"


def estimate(found: Mapping[str, Any], form: str = ".4f") -> str:
    """`0.7477 [0.7440, 0.7514]`; the reason where it is undefined."""
    if found["value"] is None:
        return f"undefined: {found.get('reason', 'no reason given')}"
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:{form}} ({found.get('reason', 'no interval')})"
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"
