"""Makes a proposal of what was found out about the tables."""

import re
from collections.abc import Iterator
from dataclasses import replace

from cli.errors import InputError
from jobs.schema_proposal import roles
from jobs.schema_proposal.columns import unquoted
from jobs.schema_proposal.proposal import KEYS, Proposal, ProposedField, ProposedNumber
from jobs.schema_proposal.roles import Facts, Guess
from jobs.schema_proposal.sizes import buckets_for, counted, ids_of_all, nulls
from jobs.schema_proposal.statistics import Varying
from jobs.schema_proposal.survey import Read, Survey
from schemas.fields import SIDES, Field, Side
from schemas.schema import OWN_COLUMNS

RARELY = 0.01  # of the items may have another value now and then: it still is the item's
NEARLY_ALL = 0.95  # of the rows have an id of their own: nothing is learned of it
MANY_NUMBERS = 1000  # a column of so many different whole numbers may be an amount
SKEWED = 10  # times its mean: a number with such a greatest value is better taken as its logarithm
ID_NAME = re.compile(r"(^|_)(id|ids|key|code|no|nr|hash|uuid|sku)$|id$")


def propose(found: Survey, name: str) -> Proposal:
    """The schema that fits what was found; an `InputError` where that has no field."""
    maker = _Maker(found)
    if found.contexts is not None:
        maker.add(found.contexts, found.context_weights, in_contexts=True)
    maker.add(found.impressions, found.weights, in_contexts=False)
    if all(one.is_left_out for one in maker.fields):
        reasons = "; ".join(f"{source}: {reason}" for source, reason in maker.left_out) or "only keys"
        where = found.impressions.where
        raise InputError(f"{where}: expected columns that can be fields, found none ({reasons}).")
    users = (found.contexts or found.impressions).facts
    return Proposal(
        name=name,
        read=tuple(_read_lines(found)),
        roles=_with_names(found.roles, maker.fields),
        sample_id_type=roles.id_type(found.impressions.facts.get(found.source("sample_id") or "")),
        user_id_type=roles.id_type(users.get(found.source("user_id") or "")),
        fields=tuple(sorted(maker.fields, key=lambda one: SIDES.index(one.field.side))),
        numbers=tuple(maker.numbers),
        left_out=tuple(maker.left_out),
    )


def _with_names(found: dict[str, Guess], fields: list[ProposedField]) -> dict[str, Guess]:
    """The roles, where the user's and the item's name a field, not a column."""
    names = {one.field.source or one.field.name: one.field.name for one in fields if not one.is_left_out}
    named = {
        role: found[role]._replace(source=names.get(found[role].source or ""))
        for role in ("user_id", "item_id")
    }
    return found | named


def _read_lines(found: Survey) -> Iterator[str]:
    tables = (("impressions", found.impressions), ("contexts", found.contexts))
    for what, read in tables:
        if read is not None:
            yield f"{read.rows:,} of {read.total:,} {what}, {read.where}"


class _Maker:
    """Makes fields of columns, one after the other, each with a name that no other has."""

    def __init__(self, found: Survey) -> None:
        self._found = found
        self._taken = set(OWN_COLUMNS)  # of samples
        self.fields: list[ProposedField] = []
        self.numbers: list[ProposedNumber] = []
        self.left_out: list[tuple[str, str]] = []

    def add(self, read: Read, weights: dict[str, str], in_contexts: bool) -> None:
        """Everything of one table. weights: by column of weights, that of their ids."""
        self.left_out += [(c.source, f"{c.type} is no id, number or list of them") for c in read.unusable]
        not_fields = {self._found.source(role) for role in KEYS}
        weight_of = {ids: weight for weight, ids in weights.items()}
        for facts in read.facts.values():
            if facts.source in not_fields or facts.source in weights:
                continue
            side, checks = ("user", []) if in_contexts else self._side(facts)
            reason = self._why_unusable(facts, in_contexts)
            if reason:
                self.left_out.append((facts.source, reason))
            elif facts.column.kind == "number":
                self.numbers.append(self._number(facts, side, checks))
            else:
                self.fields.append(self._field(read, facts, side, checks, weight_of.get(facts.source)))

    def _why_unusable(self, facts: Facts, in_contexts: bool) -> str:
        """Why there can be no field of a column; empty where there can."""
        kind, stats = facts.column.kind, facts.stats
        if not stats.values:
            return "it has no value in the rows that were read"
        if kind == "flag":
            return "a boolean is no id: cast it to a whole number in the table"
        if kind == "weights":
            return "an array of numbers is no list of ids, and fits the lengths of no other list"
        if not in_contexts and self._found.contexts and facts.source in self._found.contexts.facts:
            return "the table of contexts has it too: it is read from there"
        return ""

    def _side(self, facts: Facts) -> tuple[Side, list[str]]:
        """Of a column of the impressions, by what it varies within."""
        found, source = self._found, facts.source
        if found.contexts is None:
            if source == found.source("user_id"):
                return "user", _where_it_varies(found.in_context, source, "contexts")
            if _is_constant(found.in_context, source, 0):
                return "user", []
        if source == found.source("item_id"):
            return "item", []
        if found.source("item_id") is not None and _is_constant(found.in_item, source, RARELY):
            return "item", _where_it_varies(found.in_item, source, "items")
        checks = ["cross, if it is of user and item together"]
        if found.contexts is not None and _is_constant(found.in_context, source, 0):
            checks.append("never varies within a context: it would be a user field in the table of contexts")
        return "context", checks

    def _field(
        self, read: Read, facts: Facts, side: Side, checks: list[str], weights: str | None
    ) -> ProposedField:
        column, stats = facts.column, facts.stats
        ids = ids_of_all(stats, read.total)
        field = self._named(
            Field(
                name="1",
                side=side,
                buckets=buckets_for(ids),
                multi=column.kind != "id",
                weighted=column.kind == "weighted" or weights is not None,
                weight_source=weights,
            ),
            facts.source,
        )
        checks = [*checks, *self._checks(facts, weights)]
        reasons = [] if self._has_role(facts) else self._why_left_out(facts, in_contexts=side == "user")
        checks += [f"left out: {reason}" for reason in reasons]
        return ProposedField(field, counted(stats, ids, read.total), tuple(checks), bool(reasons))

    def _checks(self, facts: Facts, weights: str | None) -> list[str]:
        """What to look at, beside the side. weights: the column that is proposed for them."""
        checks = []
        if weights is not None:
            checks.append(
                f"{unquoted(weights)} is taken for its weights: does it say how much each id counts?"
            )
        if facts.column.kind == "weighted" and (facts.stats.low or 0) < 0:
            checks.append(f"has weights below 0, the least is {facts.stats.low:g}: such rows are set aside")
        if _may_be_amount(facts) and not self._has_role(facts):
            checks.append("an id, or an amount or a time? As an id, 7 is as far from 8 as from 900")
        return checks

    def _has_role(self, facts: Facts) -> bool:
        return facts.source in (self._found.source("user_id"), self._found.source("item_id"))

    def _why_left_out(self, facts: Facts, in_contexts: bool) -> list[str]:
        """Why a field had better not be used."""
        stats = facts.stats
        reasons = []
        if stats.distinct == 1 and not stats.nulls and facts.column.kind == "id":
            reasons.append("it has one and the same value in all rows")
        if not in_contexts and facts.source in self._found.late:
            reasons.append("it is the same wherever nobody clicked, as if it were known only after the click")
        if facts.column.kind == "id" and stats.values > 100 and stats.distinct > NEARLY_ALL * stats.values:
            reasons.append("nearly every row has another value, of which nothing can be learned")
        return reasons

    def _number(self, facts: Facts, side: Side, checks: list[str]) -> ProposedNumber:
        stats = facts.stats
        name = self._named(Field("1", side, 2), facts.source)
        if facts.source in self._found.late:
            check = "the same wherever nobody clicked: if it is known only after the click, leave it out"
            checks = [*checks, check]
        low, high, mean = (stats.low or 0.0), (stats.high or 0.0), (stats.mean or 0.0)
        text = f"{low:g} to {high:g}, mean {mean:g}{nulls(stats)}"
        is_skewed = low >= 0 and high > SKEWED * mean
        return ProposedNumber(name.name, side, name.source, is_skewed, text, tuple(checks))

    def _named(self, field: Field, source: str) -> Field:
        """The field with a name made of its column's; nothing else has it, nor its columns in the samples."""
        base = fit_name(source)
        named, number = replace(field, name=base), 1
        while self._taken & _taken_by(named):
            number += 1
            named = replace(field, name=f"{base}_{number}")
        self._taken |= _taken_by(named)
        return replace(named, source=None if named.name == source else source)


def _taken_by(field: Field) -> set[str]:
    """Its name and those of all columns that it may have in the samples, in small letters."""
    names = (f"field {field.name}", field.column, field.weight_column, field.length_column)
    return {name.lower() for name in names}


def fit_name(source: str) -> str:
    """A column's name as a field may have it (`schemas.fields.NAME`)."""
    return re.sub(r"\W+", "_", unquoted(source), flags=re.ASCII).strip("_") or "field"


def _is_constant(inside: Varying, source: str, share: float) -> bool:
    """Whether a column is the same within nearly all values of a key. A constant one counts, too."""
    return inside.keys > 0 and inside.varies.get(source, 0) <= share * inside.keys


def _where_it_varies(inside: Varying, source: str, what: str) -> list[str]:
    num = inside.varies.get(source, 0)
    return [f"varies within {num:,} of {inside.keys:,} {what}"] if num else []


def _may_be_amount(facts: Facts) -> bool:
    is_many = facts.column.kind == "id" and facts.column.is_whole and facts.stats.distinct > MANY_NUMBERS
    return is_many and not ID_NAME.search(roles.words(facts.source))
