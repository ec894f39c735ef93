"""The nearest of the names that there are, for one that there is not."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """` (did you mean NAME?)`, or nothing where no name is like it."""
    nearest = difflib.get_close_matches(word, list(names), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
