"""The text of a proposal: whatever columns are called and however many ids they have, YAML that says so."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.schema_proposal import text
from jobs.schema_proposal.columns import Column
from jobs.schema_proposal.making import propose
from jobs.schema_proposal.proposal import Proposal, ProposedNumber
from jobs.schema_proposal.roles import Facts, Guess
from jobs.schema_proposal.statistics import Stats, Varying
from jobs.schema_proposal.survey import ROLES, Read, Survey
from schemas import schema_file

NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    [
        "id",
        "ID",
        "a_weight",
        "a",
        "a_length",
        "no",
        "1e3",
        "0x1f",
        "null",
        "~",
        "- x",
        "a: b",
        "a # b",
        "{",
        "x\ny",
    ]
)
KINDS = st.sampled_from(["id", "ids", "weighted", "number"])


@st.composite
def tables(draw: st.DrawFn) -> Read:
    names = draw(st.lists(NAMES, min_size=2, max_size=8, unique=True))
    facts = {}
    for place, name in enumerate(names):
        kind = draw(KINDS) if place else "id"
        distinct = draw(st.integers(2, 1 << 40))
        stats = Stats(
            3 * distinct, draw(st.integers(0, 9)), 3 * distinct, distinct, distinct, 1, 0.0, 9.0, 1.0
        )
        facts[name] = Facts(Column(name, kind, "map<>", draw(st.booleans())), stats)
    total = max(one.stats.rows for one in facts.values()) * draw(st.integers(1, 1000))
    return Read(draw(NAMES), facts, [Column(draw(NAMES), "other", draw(NAMES))], 7, total)


@given(tables(), tables(), st.lists(NAMES, min_size=6, max_size=6), st.sampled_from([1, 0]))
def test_the_text_is_what_was_proposed(
    impressions: Read, contexts: Read, keys: list[str], varies: int
) -> None:
    guesses = [Guess(f"key {key}", note) for key, note in zip(keys, reversed(keys), strict=True)]
    inside = Varying(1, dict.fromkeys(impressions.facts, varies))
    found = Survey(impressions, contexts, dict(zip(ROLES, guesses, strict=True)), inside, inside)
    only_left = not set(impressions.facts) - set(contexts.facts)
    proposal = propose(found, keys[0])
    written = text.yaml_text(proposal)
    assert text.table_text(proposal)
    content = yaml.safe_load(written)
    assert content["name"] == keys[0]
    if only_left or proposal.missing:
        return
    schema = schema_file.parse(written.encode(), "proposed")
    assert [*schema.fields] == sorted(proposal.kept, key=lambda field: field.per_impression)
    assert schema.tables is not None
    roles = proposal.roles
    assert schema.tables.context_id == roles["context_id"].source == guesses[0].source
    assert (schema.tables.sample_id, schema.tables.click) == (guesses[1].source, guesses[2].source)


@given(st.lists(st.tuples(NAMES, NAMES, st.booleans()), min_size=1, max_size=4))
def test_numbers_are_a_section_of_their_own(drawn: list[tuple[str, str, bool]]) -> None:
    numbers = tuple(
        ProposedNumber(f"n{place}", "item", source, log1p, counted, (counted,))
        for place, (source, counted, log1p) in enumerate(drawn)
    )
    lines = text._numbers(numbers)
    content = yaml.safe_load("\n".join(lines))
    assert [(one["source"], one.get("log1p", False)) for one in content["numbers"]] == [
        (source, log1p) for source, _, log1p in drawn
    ]


def test_a_proposal_without_fields_of_a_side_says_so() -> None:
    roles = {role: Guess("a") for role in ROLES}
    nothing = Proposal("x", (), roles, "int64", "string", ())
    assert len(nothing.missing) == 2
    assert text.yaml_text(nothing).count("# TODO: none ") == 2
