"""The contract of `decision.json`: whether a candidate became the champion, and why. By esmm.registry."""

from typing import Literal, NotRequired, TypedDict, cast

from cli.errors import InputError
from storage.json_files import read_json

FORMAT = 1
DECISION_NAME = "decision.json"


class Gate(TypedDict):
    """One condition. text: a sentence with the figures.

    order: of versions and days; value: a figure of the candidate against bounds; change: the candidate
    against the champion.
    """

    name: str
    kind: Literal["order", "value", "change"]
    passed: bool
    text: str


class DayDifference(TypedDict):
    """AUC of the candidate minus that of the champion on one day. error: its standard error, by users.

    Both are null where the AUC or its interval is undefined; the reason says why.
    """

    value: float | None
    error: float | None
    reason: NotRequired[str]


class Decision(TypedDict):
    """decision.json as a whole."""

    format: int
    model: str
    version: int
    day: str  # that both were judged on, ISO
    trained_to: str  # the last day that the candidate was trained on, ISO
    parent: int | None
    champion: int | None  # as it was before the decision
    decision: Literal["promoted", "kept"]
    reason: str
    gates: list[Gate]
    conversions: int  # of that day
    differences: dict[str, DayDifference]  # by task; none without a champion
    metrics: str  # path of the evaluation
    metrics_digest: str  # SHA-256 of its content
    decided_at: str  # ISO, UTC
    written_by: str


def read_decision(path: str) -> Decision:
    """A decision.json, or an `InputError`."""
    found = read_json(path)
    missing = Decision.__required_keys__ - found.keys()
    if found.get("format") != FORMAT or missing:
        raise InputError(
            f"{path}: expected a decision of format {FORMAT} by esmm.registry, found something else. Ask "
            "again: python -m esmm.registry decide."
        )
    return cast(Decision, found)
