"""Which columns are no fields but keys and labels, and which fields name the user and the item: guesses."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from jobs.schema_proposal.columns import Column, unquoted
from jobs.schema_proposal.statistics import Stats

ID_WORDS = r"_?(id|ids|key|number|no|nr|code|hash|uuid|nick)?$"
CONTEXT = re.compile(r"(^|_)(context|session|request|visit|page_?view|query|search)" + ID_WORDS)
SAMPLE = re.compile(r"(^|_)(sample|impression|exposure|display|event|row)" + ID_WORDS + r"|^id$")
USER = re.compile(r"(^|_)(user|customer|client|member|visitor|account|shopper|u)" + ID_WORDS)
ITEM = re.compile(r"(^|_)(item|product|goods|sku|article|ad|offer|listing|video|movie)" + ID_WORDS)
CLICK = re.compile(r"(^|_)(click|clk)")
CONVERSION = re.compile(r"(^|_)(conver|conv(_|$)|bought|buy|purchas|order|paid|pay(_|$)|install)")
FEW = 0.01  # share of the conversions that may be without their click: dirt


class Facts(NamedTuple):
    """A column and what was counted of it."""

    column: Column
    stats: Stats

    @property
    def source(self) -> str:
        return self.column.source


class Guess(NamedTuple):
    """The column that has a role, None where none was found. note: what to check, or what to do."""

    source: str | None
    note: str = ""


def words(source: str) -> str:
    """A column's name in small letters, its words with underscores between."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", unquoted(source))
    return re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")


def is_called(source: str, pattern: re.Pattern[str]) -> bool:
    return pattern.search(words(source)) is not None


def shared_key(impressions: Iterable[Column], contexts: Iterable[Column] | None) -> str | None:
    """The context's key, where the columns alone say which it is: before anything is counted."""
    names = _ids(impressions)
    if contexts is not None:
        others = _ids(contexts)
        names = [name for name in names if name in others]
        if len(names) == 1:
            return names[0]
    named = [name for name in names if is_called(name, CONTEXT)]
    return named[0] if len(named) == 1 else None


def _ids(columns: Iterable[Column]) -> list[str]:
    return [column.source for column in columns if column.kind == "id"]


def context_of_two(impressions: Sequence[Facts], contexts: Sequence[Facts]) -> Guess:
    """The key that both tables have: all different in the contexts, or called like one."""
    names = {facts.source for facts in impressions if facts.column.kind == "id"}
    shared = [facts for facts in contexts if facts.column.kind == "id" and facts.source in names]
    known = [facts for facts in shared if facts.stats.is_unique or is_called(facts.source, CONTEXT)]
    if not known:
        return Guess(None, "no column of ids is in both tables and has a value of its own in each context")
    best = max(known, key=lambda facts: (facts.stats.is_unique, is_called(facts.source, CONTEXT)))
    if not best.stats.is_unique:
        return Guess(best.source, "rows of the table of contexts share it: is it the context's key?")
    return Guess(best.source)


def context_of_flat(impressions: Sequence[Facts], determining: Collection[str]) -> Guess:
    """The key of a flat table's contexts: by its name, else what determines the user.

    determining: columns of ids in each of whose values the user is one and the same.
    """
    ids = [facts for facts in impressions if facts.column.kind == "id"]
    named = [facts for facts in ids if is_called(facts.source, CONTEXT)]
    if named:
        best = max(named, key=lambda facts: facts.stats.distinct)
        return Guess(best.source, "guessed by its name: do the impressions of a visit or a page share it?")
    finest = [facts for facts in ids if facts.source in determining]
    if finest:
        best = max(finest, key=lambda facts: facts.stats.distinct)
        return Guess(best.source, "guessed: rows that share it have one user; is it a visit or a page?")
    return Guess(
        None,
        "no column is called like a session, visit or request: which one do the impressions of a page share?",
    )


def sample_id(impressions: Sequence[Facts], context: str | None) -> Guess:
    """What each impression has of its own."""
    unique = [
        facts
        for facts in impressions
        if facts.column.kind == "id" and facts.stats.is_unique and facts.source != context
    ]
    named = [facts for facts in unique if is_called(facts.source, SAMPLE)]
    if named:
        return Guess(named[0].source)
    if unique:
        return Guess(unique[0].source, "guessed: every impression has another one")
    return Guess(None, "no column of ids is another one in each impression: add one to the table")


def label_options(impressions: Iterable[Facts]) -> list[Facts]:
    """Booleans, and whole numbers that are 0 and 1."""
    return [facts for facts in impressions if is_zero_or_one(facts)]


def is_zero_or_one(facts: Facts) -> bool:
    stats = facts.stats
    is_number = facts.column.kind == "flag" or (facts.column.kind == "id" and facts.column.is_whole)
    return (
        is_number and stats.low is not None and stats.high is not None and 0 <= stats.low <= stats.high <= 1
    )


def labels(options: Sequence[Facts], above: Mapping[tuple[str, str], int]) -> tuple[Guess, Guess]:
    """Click and conversion: by their names, and no conversion without a click.

    above: by pair of columns, in how many rows the second is 1 and the first is not.
    """
    clicks = [f for f in options if is_called(f.source, CLICK)]
    buys = [f for f in options if is_called(f.source, CONVERSION) and f not in clicks]
    pairs = [
        (first, second)
        for first in clicks or options
        for second in buys or options
        if first != second and _fits(first, second, above[first.source, second.source])
    ]
    if not pairs:
        return _alone(clicks, "click"), _alone(buys, "conversion")
    # Of several that fit the click is what happens most, the conversion what happens most of the others.
    click, buy = max(pairs, key=lambda pair: (pair[0].stats.mean or 0.0, pair[1].stats.mean or 0.0))
    without = above[click.source, buy.source]
    note = "" if clicks else "guessed: it is 1 wherever the conversion is"
    other = "" if buys else "guessed: it is 1 only where the click is"
    if without:
        other = f"{without:,} rows without a click have it: they will be set aside"
    return Guess(click.source, note), Guess(buy.source, other)


def _fits(click: Facts, buy: Facts, without_click: int) -> bool:
    """Whether one can be the other's click; of columns whose names say so, some dirt tells nothing else."""
    if is_called(click.source, CLICK) and is_called(buy.source, CONVERSION):
        return True
    return without_click < FEW * buy.stats.rows * (buy.stats.mean or 0.0)


def _alone(named: Sequence[Facts], what: str) -> Guess:
    if named:
        return Guess(named[0].source, f"guessed by its name: is it 1 for a {what}, and 0 else?")
    return Guess(None, f"no column of 0 and 1 looks like the {what}: add one to the table of impressions")


def named_id(options: Iterable[Facts], pattern: re.Pattern[str]) -> Guess:
    """The column of ids that is called like a user's or an item's; of several the one with most ids."""
    named = [f for f in options if f.column.kind == "id" and is_called(f.source, pattern)]
    if not named:
        return Guess(None)
    best = max(named, key=lambda facts: facts.stats.distinct)
    others = [unquoted(f.source) for f in named if f != best]
    return Guess(best.source, f"or is it {', '.join(others)}?" if others else "")


def id_type(facts: Facts | None) -> str:
    """How samples keep such an id."""
    is_number = facts is not None and facts.column.is_whole and (facts.stats.low or 0) >= 0
    return "int64" if is_number else "string"
