"""A proposal as a YAML file with comments, and as a table on the screen."""

from collections.abc import Iterator
from typing import Any

from cli.text_table import aligned, with_rule
from jobs.schema_proposal.columns import unquoted
from jobs.schema_proposal.proposal import KEYS, Proposal, ProposedField, ProposedNumber
from jobs.schema_proposal.roles import Guess
from schemas.fields import Field

CHECK, TODO = "CHECK", "TODO"
HEAD = f"""Proposed by jobs.propose_schema: a first schema, to be finished by hand (docs/own_logs.md).
{TODO}: has to be filled in. {CHECK}: was guessed; look at it, correct it, and remove the comment.
Of every field: may it be used? What is known only after the click (time on the page, a rating) gives the
label away, and what will not be there when predictions are wanted is of no use."""
BUCKETS = """buckets: at least twice as many as the ids that were counted, a lower bound where only some rows
were read. Once samples are built, jobs.profile_samples proposes better ones."""


def yaml_text(proposal: Proposal) -> str:
    """The file. It is a schema as it stands wherever nothing is missing (`Proposal.missing`)."""
    lines = [*map(_comment, HEAD.splitlines()), *(_comment(f"Read: {line}") for line in proposal.read)]
    lines += [_entry("name", proposal.name), *_named_fields(proposal), *_tables(proposal), *_fields(proposal)]
    lines += _numbers(proposal.numbers)
    if proposal.left_out:
        lines.append("# Columns that are left out:")
        lines += [_comment(f"  {unquoted(source)}: {reason}") for source, reason in proposal.left_out]
    return "\n".join(lines) + "\n"


def _named_fields(proposal: Proposal) -> Iterator[str]:
    """The fields whose ids name the user and the item, which need not be there."""
    for role in ("user_id", "item_id"):
        guess = proposal.roles[role]
        if guess.source is None:
            yield _comment(f"{role}: {CHECK}: no field looks like it; name one, or leave it out")
        else:
            yield from _role("", role, guess)


def _tables(proposal: Proposal) -> Iterator[str]:
    yield "tables:"
    for role in KEYS:
        yield from _role("  ", role, proposal.roles[role])
    yield _entry("  sample_id_type", proposal.sample_id_type)
    yield _entry("  user_id_type", proposal.user_id_type)


def _role(indent: str, role: str, guess: Guess) -> Iterator[str]:
    if guess.note:
        yield indent + _comment(f"{CHECK if guess.source else TODO}: {guess.note}")
    yield _entry(indent + role, guess.source) if guess.source else f"{indent}{role}:"


def _fields(proposal: Proposal) -> Iterator[str]:
    yield from map(_comment, BUCKETS.splitlines())
    missing = [line.removeprefix("fields: ") for line in proposal.missing if line.startswith("fields: ")]
    yield from (_comment(f"{TODO}: {line}") for line in missing)
    yield "fields:" if proposal.kept else "fields: []"
    for one in proposal.fields:
        yield from _field(one)


def _field(one: ProposedField) -> Iterator[str]:
    yield from (f"  {_comment(f'{CHECK}: {check}')}" for check in one.checks)
    line = f"- {_flow(_options(one.field))}  {_comment(one.counted)}"
    yield f"  # {line}" if one.is_left_out else f"  {line}"


def _options(field: Field) -> dict[str, Any]:
    """What the file says of a field: no defaults."""
    options: dict[str, Any] = {"name": field.name, "side": field.side}
    options |= {"source": field.source} if field.source else {}
    options |= {name: True for name in ("multi", "weighted") if getattr(field, name)}
    options |= {"weight_source": field.weight_source} if field.weight_source else {}
    return options | {"buckets": field.buckets}


def _numbers(numbers: tuple[ProposedNumber, ...]) -> list[str]:
    """The section of numeric fields."""
    if not numbers:
        return []
    lines = ["numbers:"]
    for number in numbers:
        options: dict[str, Any] = {"name": number.name, "side": number.side}
        options |= {"source": number.source} if number.source else {}
        options |= {"log1p": True} if number.log1p else {}
        lines += [f"  {_comment(f'{CHECK}: {check}')}" for check in number.checks]
        lines.append(f"  - {_flow(options)}  {_comment(number.counted)}")
    return lines


def _entry(key: str, value: str) -> str:
    return f"{key}: {_scalar(value)}"


def _flow(options: dict[str, Any]) -> str:
    """A mapping on one line."""
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in options.items()) + "}"


def _scalar(value: Any) -> str:
    """A value as YAML writes it on one line, in quotes where it would be something else without."""
    import yaml

    needs_escapes = isinstance(value, str) and not value.isprintable()
    style = '"' if needs_escapes else None
    text: str = yaml.safe_dump(
        [value], default_flow_style=True, default_style=style, width=float("inf"), allow_unicode=True
    )
    return text.strip()[1:-1]


def _comment(text: str) -> str:
    """A comment; what would end its line, or no YAML may hold, is written as an escape."""
    plain = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"# {''.join(plain)}".rstrip()


def table_text(proposal: Proposal) -> str:
    """The fields as a table for the screen, then the roles, then what is missing."""
    headings = ("field", "side", "values", "buckets", "counted")
    rows = [headings, *(_row(one) for one in proposal.fields)]
    rows += [(n.name, n.side, "number", "-", n.counted) for n in proposal.numbers]
    lines = with_rule(aligned(rows, left=len(headings)))
    lines += ["", *(f"{role}: {guess.source or '-'}" for role, guess in proposal.roles.items())]
    return "\n".join(lines)


def _row(one: ProposedField) -> tuple[str, ...]:
    field = one.field
    values = "left out" if one.is_left_out else "list" if field.multi else "one"
    return (
        field.name,
        field.side,
        values + (", weighted" if field.weighted else ""),
        f"{field.buckets:,}",
        one.counted,
    )
