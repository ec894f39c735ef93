"""The days of daily retraining as tables, read from what their stages have written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.text_table import aligned, with_rule

TASKS = {"ctr": "CTR", "cvr": "CVR", "ctcvr": "CTCVR"}
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Day:
    """One day that has run. champion, candidate, decision: None where there was none. frozen: the first
    model's evaluation of this day, compared with the champion's."""

    day: str
    champion: Metrics | None
    candidate: Metrics | None
    decision: dict[str, Any] | None
    frozen: Metrics | None


def read_day(data: Path, day: str) -> Day:
    """What a day has left in the folder of daily retraining."""
    of_day = data / "days" / f"ds={day}"
    plan = _json(of_day / "plan.json")
    runs = sorted((data / "runs" / f"ds={day}").glob("*/metrics.json"))
    run = runs[-1].parent if runs else None
    champion = _json(of_day / "champion/metrics.json") if plan and plan["champion_run"] else None
    return Day(
        day,
        champion,
        _json(run / "metrics.json") if run else None,
        _json(run / "decision.json") if run else None,
        _json(of_day / "frozen/metrics.json"),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def days_table(days: Sequence[Day]) -> str:
    """A line per day: the AUCs of champion and candidate on it, and what was decided."""
    head = ["day", *(f"champion {name}" for name in TASKS.values())]
    head += [*(f"candidate {name}" for name in TASKS.values()), "decision"]
    rows = [
        [one.day, *_aucs(one.champion), *_aucs(one.candidate), (one.decision or {}).get("decision", "-")]
        for one in days
    ]
    lines = with_rule(aligned([head, *rows]))
    reasons = [one.decision["reason"] if one.decision else "nothing to learn from" for one in days]
    return "\n".join([*lines[:2], *(f"{line}  {why}" for line, why in zip(lines[2:], reasons, strict=True))])


def _aucs(metrics: Metrics | None) -> list[str]:
    if metrics is None:
        return ["-"] * len(TASKS)
    return [_number(metrics[task]["auc"]["value"]) for task in TASKS]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def best_auc(metrics: Metrics, task: str) -> float:
    """The AUC of the true probabilities, from how much of the way from 0.5 to it was made."""
    return 0.5 + (metrics[task]["auc"]["value"] - 0.5) / metrics[task]["share_of_best"]


def recovered(day: Day, task: str) -> tuple[float, float, float, float]:
    """AUC of the frozen model, of the champion, of the truth; (champion - frozen) / (truth - frozen)."""
    assert day.champion is not None and day.frozen is not None
    daily, frozen = day.champion[task]["auc"]["value"], day.frozen[task]["auc"]["value"]
    best = best_auc(day.champion, task)
    return frozen, daily, best, (daily - frozen) / (best - frozen)


def staleness_table(days: Sequence[Day], task: str) -> str:
    """A line per day: what a model that is trained no more loses, and how much of it daily training saves."""
    rows = []
    for one in days:
        if one.champion is None or one.frozen is None:
            continue
        frozen, daily, best, share = recovered(one, task)
        if one.frozen["source"]["run"] == one.champion["source"]["run"]:
            rows.append([one.day, f"{frozen:.4f}", f"{daily:.4f}", f"{best:.4f}", "the same model", "-"])
            continue
        # The frozen model was compared with the champion: the other way round the signs change.
        change = one.frozen["against"][task]["auc"]
        low, high = -change["high"], -change["low"]
        gain = f"{daily - frozen:+.4f} [{low:+.4f}, {high:+.4f}]"
        rows.append([one.day, f"{frozen:.4f}", f"{daily:.4f}", f"{best:.4f}", gain, f"{share:.0%}"])
    head = ["day", "frozen", "daily", "truth", "daily - frozen, 95 %", "recovered"]
    return "\n".join([f"AUC of {TASKS[task]}", *with_rule(aligned([head, *rows]))])
