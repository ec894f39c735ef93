"""What the registry's commands print."""

from collections.abc import Iterator

from cli.text_table import aligned, with_rule
from esmm.registry.store import State, Version
from schemas.metrics import TASKS
from schemas.promotion import Decision

HEAD = (
    *("version", "aliases", "trained to", "judged on", "parent"),
    *("CTR", "CVR", "CTCVR", "decision", "promoted at"),
)
MISSING = "-"


def format_decision(decision: Decision) -> str:
    """What was decided, then a line per gate."""
    told = f"version {decision['version']} on {decision['day']}: {decision['decision']}, {decision['reason']}"
    rows = [
        ("passed" if gate["passed"] else "BROKEN", gate["name"], gate["text"]) for gate in decision["gates"]
    ]
    return "\n".join([told, *(f"  {line}" for line in aligned(rows, left=3))])


def format_versions(state: State, metrics: dict[int, dict[str, float]]) -> str:
    """A line per version, oldest first. metrics: MLflow's, by version; AUCs are shown."""
    rows = [_row(state, version, metrics[number]) for number, version in state.versions.items()]
    return "\n".join(with_rule(aligned([HEAD, *rows], left=5)))


def _row(state: State, version: Version, metrics: dict[str, float]) -> list[str]:
    tags = version.tags
    names = ", ".join(sorted(alias for alias, number in state.aliases.items() if number == version.number))
    days = [tags.get(key, MISSING) for key in ("day", "judged_on", "parent")]
    ends = [tags.get(key, MISSING) for key in ("decision", "promoted_at")]
    return [str(version.number), names, *days, *_aucs(metrics), *ends]


def _aucs(metrics: dict[str, float]) -> Iterator[str]:
    for task in TASKS:
        value = metrics.get(f"{task}_auc")
        yield MISSING if value is None else f"{value:.4f}"
