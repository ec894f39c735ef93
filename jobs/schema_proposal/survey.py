"""What Spark finds out about the tables: columns counted, roles guessed, and what varies within what."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from cli.errors import InputError
from jobs.schema_proposal import roles, statistics
from jobs.schema_proposal.columns import Column, columns_of
from jobs.schema_proposal.roles import Facts, Guess
from jobs.schema_proposal.statistics import Sample, Varying

LOG = logging.getLogger(__name__)

ROLES = ("context_id", "sample_id", "click", "conversion", "user_id", "item_id")
MOST_KEYS = 4  # that are tried as a flat table's context
NOTHING = Varying(0, {})
WEIGHT_WORDS = {"weight", "score"}
COMMON_WORDS = {"id", "product", "item", "user", "customer"}  # many columns have them


@dataclass(frozen=True)
class Read:
    """One of the tables. rows: that were read, of all that there are."""

    where: str
    facts: Mapping[str, Facts]
    unusable: Sequence[Column]
    rows: int
    total: int


@dataclass
class Survey:
    """All that a proposal is made of. contexts: None where the table of impressions is flat.

    in_context, in_item: what of the impressions varies within a context (where its key is not known, a user)
    and an item. late: columns that are all the same where nobody has clicked. weights: by column of weights,
    that of their ids; contexts and impressions each have their own.
    """

    impressions: Read
    contexts: Read | None
    roles: dict[str, Guess]
    in_context: Varying = NOTHING
    in_item: Varying = NOTHING
    late: set[str] = field(default_factory=set)
    weights: dict[str, str] = field(default_factory=dict)
    context_weights: dict[str, str] = field(default_factory=dict)

    def source(self, role: str) -> str | None:
        return self.roles[role].source


def survey(
    impressions: DataFrame, contexts: DataFrame | None, where: tuple[str, str | None], rows: int
) -> Survey:
    """Read at most about so many impressions. where: what the tables are called, for messages."""
    ours = columns_of(impressions.schema)
    theirs = columns_of(contexts.schema) if contexts is not None else None
    _require_usable(ours, where[0])
    key = roles.shared_key(ours, theirs)
    total = impressions.count()
    share = min(1.0, rows / max(1, total))
    LOG.info("reading %s of %s impressions", f"{min(rows, total):,}", f"{total:,}")
    with _taken(impressions, ours, key, share, rows) as shown:
        own = _read(shown, ours, where[0])
        if contexts is None or theirs is None:
            return _flat(shown, own)
        _require_usable(theirs, where[1] or "")
        with _taken(contexts, theirs, key, share, rows) as sample:
            return _two(shown, own, sample, _read(sample, theirs, where[1] or ""))


@contextmanager
def _taken(
    table: DataFrame, columns: Sequence[Column], key: str | None, share: float, rows: int
) -> Iterator[Sample]:
    sample = statistics.take(table, columns, key, share, rows)
    try:
        yield sample
    finally:
        sample.frame.unpersist()


def _require_usable(columns: Sequence[Column], where: str) -> None:
    if all(column.kind == "other" for column in columns):
        found = ", ".join(f"{column.source} {column.type}" for column in columns) or "no columns"
        raise InputError(
            f"{where}: expected columns of whole numbers, text, fractions, or lists of them, found {found}."
        )


def _read(sample: Sample, columns: Sequence[Column], where: str) -> Read:
    if not sample.rows:
        raise InputError(f"{where}: expected a table with rows, found none.")
    LOG.info("counting %d columns of %s", len(sample.columns), where)
    stats = statistics.describe(sample)
    facts = {column.source: Facts(column, stats[column.source]) for column in sample.columns}
    unusable = [column for column in columns if column.kind == "other"]
    return Read(where, facts, unusable, sample.rows, sample.total)


def _two(shown: Sample, own: Read, sample: Sample, contexts: Read) -> Survey:
    facts = list(own.facts.values())
    others = list(contexts.facts.values())
    context = roles.context_of_two(facts, others)
    users = [f for f in others if f.source != context.source]
    found = _with_roles(shown, own, contexts, context, roles.named_id(users, roles.USER))
    found.context_weights = _weights(sample, contexts)
    return found


def _flat(shown: Sample, own: Read) -> Survey:
    facts = list(own.facts.values())
    user = roles.named_id(facts, roles.USER)
    context = roles.context_of_flat(facts, ())
    if context.source is None and user.source is not None:
        context = roles.context_of_flat(facts, _determining(shown, own, user.source))
    return _with_roles(shown, own, None, context, user)


def _determining(sample: Sample, own: Read, user: str) -> set[str]:
    """Columns of ids that several rows share, in each of whose values the user is one and the same."""
    users = own.facts[user].stats.distinct
    maybe = [
        facts
        for facts in own.facts.values()
        if facts.column.kind == "id"
        and users <= facts.stats.distinct <= 0.9 * facts.stats.values
        and facts.source != user
    ]
    maybe.sort(key=lambda facts: -facts.stats.distinct)
    found = set()
    for facts in maybe[:MOST_KEYS]:
        inside = statistics.varying(sample, facts.source, [user])
        if inside.keys and not inside.varies[user]:
            found.add(facts.source)
    return found


def _with_roles(shown: Sample, own: Read, contexts: Read | None, context: Guess, user: Guess) -> Survey:
    facts = list(own.facts.values())
    click, conversion = _labels(shown, facts)
    sample_id = roles.sample_id(facts, context.source)
    taken = {
        context.source,
        click.source,
        conversion.source,
        sample_id.source,
        user.source if contexts is None else None,
    }
    item = roles.named_id([f for f in facts if f.source not in taken], roles.ITEM)
    guesses = dict(zip(ROLES, (context, sample_id, click, conversion, user, item), strict=True))
    found = Survey(own, contexts, guesses, weights=_weights(shown, own))
    return _with_variation(found, shown, context.source or (user.source if contexts is None else None))


def _with_variation(found: Survey, shown: Sample, key: str | None) -> Survey:
    """What varies within a context and an item, and what does only where somebody has clicked."""
    sources = [facts.source for facts in found.impressions.facts.values() if _may_vary(facts)]
    LOG.info("looking at what varies within a context and within an item")
    if key is not None:
        found.in_context = statistics.varying(shown, key, sources)
    if (item := found.source("item_id")) is not None:
        found.in_item = statistics.varying(shown, item, sources)
    if (click := found.source("click")) is not None:
        not_clicked = shown.column(click).cast("int") == 0
        found.late = statistics.constant_where(shown, not_clicked, sources)
    return found


def _may_vary(facts: Facts) -> bool:
    """A list of one and the same id may be empty in one row and long in another."""
    return facts.column.kind in ("ids", "weighted") or facts.stats.distinct > 1 or facts.stats.nulls > 0


def _labels(sample: Sample, facts: Sequence[Facts]) -> tuple[Guess, Guess]:
    options = roles.label_options(facts)
    numbers = {option.source: sample.column(option.source).cast("int") for option in options}
    pairs = [(first, second) for first in numbers for second in numbers if first != second]
    above = statistics.counted(sample, {(a, b): numbers[b] > numbers[a] for a, b in pairs})
    return roles.labels(options, above)


def _weights(sample: Sample, own: Read) -> dict[str, str]:
    """By column of numbers that can be the weights of one of ids: that one.

    Lists are as long as the ids' in every row; single numbers are null where the id is, and nowhere else.
    """
    kinds = {"weights": "ids", "number": "id"}
    pairs: dict[tuple[str, str], SparkColumn] = {}
    for weight in own.facts.values():
        for ids in own.facts.values():
            if kinds.get(weight.column.kind) == ids.column.kind and _may_weigh(weight, ids):
                first, second = sample.column(weight.source), sample.column(ids.source)
                differs = F.size(first) != F.size(second) if ids.column.kind == "ids" else F.lit(False)
                pairs[weight.source, ids.source] = (first.isNull() != second.isNull()) | F.coalesce(
                    differs, F.lit(False)
                )
    fitting = [pair for pair, differing in statistics.counted(sample, pairs).items() if not differing]
    return _chosen(fitting)


def _may_weigh(weight: Facts, ids: Facts) -> bool:
    """By counts and names alone. A number that is null where the id is may be its weight; one that is never
    null tells nothing by that, so it has to be called one."""
    stats = weight.stats
    if stats.low is None or stats.low < 0 or stats.nulls != ids.stats.nulls:
        return False
    if ids.column.kind == "ids":
        return True
    is_called_so = bool(_name_words(weight.source) & WEIGHT_WORDS)
    is_related = bool(_name_words(weight.source) & _name_words(ids.source))
    return is_related and (is_called_so or 0 < stats.nulls < stats.rows)


def _name_words(source: str) -> set[str]:
    return {word.removesuffix("s") for word in roles.words(source).split("_")} - COMMON_WORDS


def _chosen(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Each column of weights with one of ids, first those whose names have a word in common."""
    ordered = sorted(pairs, key=lambda pair: -len(_name_words(pair[0]) & _name_words(pair[1])))
    found: dict[str, str] = {}
    for weight, ids in ordered:
        if weight not in found and ids not in found.values():
            found[weight] = ids
    return found
