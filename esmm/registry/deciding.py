"""Who is champion: by the gates, by force, or the one before. Called under the registry's lock.

Compare and set: a candidate was trained from a champion and compared with it, so it takes that champion's
place and no other's.
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from cli.errors import InputError
from cli.version import WRITTEN_BY
from esmm.registry.config import PromotionConfig
from esmm.registry.differences import Day, differences_of
from esmm.registry.evidence import (
    NOT_CHANGED,
    checkpoint_of,
    digest_of,
    read_evaluation,
    require_compared,
    require_intact,
)
from esmm.registry.gates import covered, judge
from esmm.registry.store import CANDIDATE, CHAMPION, PREVIOUS, Change, State, Store, Version
from schemas.metrics import Metrics
from schemas.promotion import FORMAT, Decision, Gate

PROMOTED, KEPT = "promoted", "kept"
FORCED, ROLLED_BACK = "promoted by force", "rolled back"
NO_LONGER = "its parent is no longer champion"


class Asked(NamedTuple):
    """Whether a version is to be promoted. path: of its metrics.json. missing: days that it should have
    learnt from and did not."""

    number: int
    path: str
    day: date
    config: PromotionConfig
    missing: Sequence[str] = ()


class Question(NamedTuple):
    """A candidate and its evaluation of a day. champion: None where there is none."""

    model: str
    candidate: Version
    champion: Version | None
    path: str
    metrics: Metrics
    day: date


def decide(store: Store, asked: Asked) -> tuple[Decision, bool]:
    """Promote a candidate or keep the champion. Whether that is new: the same question changes nothing.

    A promotion stands, whatever a day shows whose logs were mended since: only a rollback takes it back.
    """
    _, path, day, config, missing = asked
    state = store.read()
    candidate = state.require(asked.number)
    metrics = read_evaluation(path, candidate.run)
    earlier = candidate.verdict
    is_same = earlier and (earlier["metrics_digest"], earlier["day"]) == (digest_of(metrics), day.isoformat())
    if earlier and (is_same or candidate.tags["decision"] == PROMOTED):
        return earlier, False
    _require_open(candidate, metrics, day)
    question = Question(store.name, candidate, state.with_alias(CHAMPION), path, metrics, day)
    decision = _decision(question, state, config, missing)
    store.commit(_change_of(decision, candidate, state))
    return decision, True


def promote(store: Store, number: int, reason: str) -> bool:
    """Make a version champion whatever its gates say; False where it is champion already."""
    state = store.read()
    version = state.require(number)
    if state.aliases.get(CHAMPION) == number:
        return False
    require_intact(version, f"Promote another version. {NOT_CHANGED}")
    tags = {"decision": FORCED, "reason": reason, **_promotion_tags(state)}
    store.commit(Change({number: tags}, _succession(number, state)))
    return True


def rollback(store: Store, expected: int | None, reason: str) -> tuple[int, int]:
    """Make the version before the champion the champion again; from which to which.

    expected: the champion to be replaced; an `InputError` where it is another one by now.
    """
    state = store.read()
    champion, previous = state.with_alias(CHAMPION), state.with_alias(PREVIOUS)
    if champion is None or previous is None:
        raise InputError(
            f"{store.name}: expected a champion and one before it, found none. Choose a version of "
            "esmm.registry show and make it champion with esmm.registry promote."
        )
    if expected is not None and champion.number != expected:
        raise InputError(f"--champion {expected}: found version {champion.number}. {NOT_CHANGED}")
    require_intact(previous, f"Make another version champion with esmm.registry promote. {NOT_CHANGED}")
    before = int(previous.tags.get("promoted_from", champion.number))
    usable = before in state.versions and before not in (champion.number, previous.number)
    tags = {"decision": ROLLED_BACK, "reason": reason, "rolled_back_at": _now()}
    aliases = {PREVIOUS: before if usable else None, CHAMPION: previous.number}
    store.commit(Change({champion.number: tags, previous.number: {"restored_at": _now()}}, aliases))
    return champion.number, previous.number


def _require_open(candidate: Version, metrics: Metrics, day: date) -> None:
    """An `InputError` where there is nothing to decide."""
    made = candidate.tags.get("decision", KEPT)
    if made != KEPT:
        raise InputError(
            f"version {candidate.number}: expected a candidate, found one that was {made}. Only "
            f"esmm.registry promote makes it champion again. {NOT_CHANGED}"
        )
    if day.isoformat() <= candidate.day:
        raise InputError(
            f"--day {day}: expected a day after {candidate.day}, the last one that version "
            f"{candidate.number} was trained on. {NOT_CHANGED}"
        )
    if checkpoint_of(metrics, candidate.run).name != candidate.tags["checkpoint"]:
        raise InputError(
            f"version {candidate.number}: expected metrics of {candidate.tags['checkpoint']}, found those of "
            f"step {metrics['source']['step']}. {NOT_CHANGED}"
        )
    require_intact(candidate, f"Register the run as it is now. {NOT_CHANGED}")


def _decision(question: Question, state: State, config: PromotionConfig, missing: Sequence[str]) -> Decision:
    candidate, champion, metrics = question.candidate, question.champion, question.metrics
    gates = _order(candidate, champion)
    is_next = all(gate["passed"] for gate in gates)
    if is_next:
        if champion is not None:
            require_compared(question.path, metrics, champion)
        days = _earlier_days(question, state, config.pool_days)
        gates += [covered(missing, config)]
        gates += judge(metrics, config, days, champion is not None)
    promoted = all(gate["passed"] for gate in gates)
    return Decision(
        format=FORMAT,
        model=question.model,
        version=candidate.number,
        day=question.day.isoformat(),
        trained_to=candidate.day,
        parent=candidate.parent,
        champion=champion.number if champion else None,
        decision="promoted" if promoted else "kept",
        reason=_reason(gates),
        gates=gates,
        conversions=metrics["ctcvr"]["positives"],
        differences=differences_of(metrics) if is_next and champion else {},
        metrics=question.path,
        metrics_digest=digest_of(metrics),
        decided_at=_now(),
        written_by=WRITTEN_BY,
    )


def _order(candidate: Version, champion: Version | None) -> list[Gate]:
    """Whether the candidate may follow this champion at all."""
    number = champion.number if champion else None
    parent = "none" if candidate.parent is None else f"version {candidate.parent}"
    text = f"the candidate's parent is {parent}, the champion {f'version {number}' if number else 'none'}"
    gates = [Gate(name="parent is champion", kind="order", passed=candidate.parent == number, text=text)]
    if champion is not None:
        text = f"the candidate was trained up to {candidate.day}, the champion up to {champion.day}"
        later = candidate.day > champion.day
        gates.append(Gate(name="later than the champion", kind="order", passed=later, text=text))
    return gates


def _reason(gates: list[Gate]) -> str:
    broken = [gate for gate in gates if not gate["passed"]]
    if not broken:
        return f"all {len(gates)} gates are passed"
    if broken[0]["name"] == "parent is champion":
        return f"{NO_LONGER}: {broken[0]['text']}"
    return f"broken: {', '.join(gate['name'] for gate in broken)}"


def _earlier_days(question: Question, state: State, pool_days: int) -> list[Day]:
    """Of other days, the newest candidate each that was kept against the same champion."""
    if question.champion is None:
        return []
    first = (question.day - timedelta(days=pool_days - 1)).isoformat()
    found: dict[str, Day] = {}
    for version in state.versions.values():
        verdict = version.verdict
        if version.tags.get("decision") != KEPT or verdict is None or not verdict["differences"]:
            continue
        if (
            verdict["champion"] == question.champion.number
            and first <= verdict["day"] < question.day.isoformat()
        ):
            found[verdict["day"]] = Day(verdict["conversions"], verdict["differences"])
    return [found[day] for day in sorted(found)]


def _change_of(decision: Decision, candidate: Version, state: State) -> Change:
    tags = {
        "verdict": json.dumps(decision),
        "judged_on": decision["day"],
        "decision": decision["decision"],
        "reason": decision["reason"],
    }
    aliases: dict[str, int | None] = {}
    if decision["decision"] == PROMOTED:
        tags |= _promotion_tags(state)
        aliases = _succession(candidate.number, state)
    elif state.aliases.get(CANDIDATE) == candidate.number:
        aliases = {CANDIDATE: None}
    return Change({candidate.number: tags}, aliases)


def _succession(number: int, state: State) -> dict[str, int | None]:
    """The old champion is kept as previous before the new one takes its place."""
    aliases = {PREVIOUS: state.aliases.get(CHAMPION), CHAMPION: number}
    return {**aliases, CANDIDATE: None} if state.aliases.get(CANDIDATE) == number else aliases


def _promotion_tags(state: State) -> dict[str, str]:
    tags = {"promoted_at": _now()}
    return {**tags, "promoted_from": str(state.aliases[CHAMPION])} if CHAMPION in state.aliases else tags


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
