"""Metrics for a person: a table of figures by task, the best reachable AUC, and the comparison."""

from collections.abc import Iterator
from typing import Any

from cli.text_table import aligned, with_rule
from schemas.metrics import COMPARED, OVER, TASKS, TITLES, Against, Difference, Estimate, Metrics, TaskMetrics


def format_metrics(metrics: Metrics) -> str:
    """Which task over which impressions, every figure with its interval, and why one is missing."""
    tasks = {"ctr": metrics["ctr"], "cvr": metrics["cvr"], "ctcvr": metrics["ctcvr"]}
    lines = [("", *(f"{name.upper()} on {OVER[name]}" for name in TASKS))]
    lines.append(("impressions", *(f"{task['rows']:,}" for task in tasks.values())))
    lines.append(("positives", *(f"{task['positives']:,}" for task in tasks.values())))
    lines.append(("mean predicted", *(_number(task["mean_predicted"]) for task in tasks.values())))
    figures = [figures_of(task) for task in tasks.values()]
    lines += [(TITLES[name], *(estimate(of_task[name]) for of_task in figures)) for name in COMPARED]
    lines.append(("ECE if calibrated", *(_number(task["ece_of_calibrated"]) for task in tasks.values())))
    if any("truth" in task["baselines"] for task in tasks.values()):
        lines.append(("best AUC", *(_best(task) for task in tasks.values())))
    if any("item_rate" in task["baselines"] for task in tasks.values()):
        aucs = (task["baselines"]["item_rate"]["auc"] for task in tasks.values())
        lines.append(("AUC of the item's rate", *map(_number, aucs)))
    table = with_rule(aligned(lines, left=1))
    parts = ["\n".join([*table, *_of_all_impressions(metrics), *_reasons(tasks)])]
    if "against" in metrics:
        parts.append(format_against(metrics["against"]))
    return "\n\n".join(parts)


def format_against(against: Against) -> str:
    """The differences with their verdicts."""
    lines = [(f"minus {against['run']}", *(name.upper() for name in TASKS))]
    for figure in COMPARED:
        lines.append((TITLES[figure], *(_difference(task[figure]) for task in _tasks_of(against))))
    return "\n".join(with_rule(aligned(lines, left=1)))


def _tasks_of(against: Against) -> Iterator[dict[str, Difference]]:
    yield from (against["ctr"], against["cvr"], against["ctcvr"])


def figures_of(task: TaskMetrics) -> dict[str, Estimate]:
    """The figures of a task by name, in the order of tables."""
    found: dict[str, Any] = dict(task)
    return {name: found[name] for name in COMPARED}


def estimate(found: Estimate) -> str:
    """`0.7477 [0.7440, 0.7514]`."""
    if found["low"] is None:
        return _number(found["value"])
    return f"{_number(found['value'])} [{_number(found['low'])}, {_number(found['high'])}]"


def _difference(found: Difference) -> str:
    if found["value"] is None or found["low"] is None:
        return _number(found["value"])
    margin = found["value"] - found["low"]
    return f"{found['value']:+.5f} ± {margin:.5f} {found['verdict'] or ''}".rstrip()


def _best(task: TaskMetrics) -> str:
    best = task["baselines"]["truth"]["auc"] if "truth" in task["baselines"] else None
    share = task.get("share_of_best")
    return _number(best) if share is None else f"{_number(best)}, reached {share:.1%}"


def _of_all_impressions(metrics: Metrics) -> list[str]:
    if "cvr_all_impressions" not in metrics:
        return []
    judged = metrics["cvr_all_impressions"]
    means = judged["all"]
    share = judged["share_of_best"]
    reached = "" if share is None else f", reached {share:.1%}"
    reachable = f"AUC {_number(judged['auc'])} of at best {_number(judged['best_auc'])}{reached}"
    own, best = _number(judged["unclicked_auc"]), _number(judged["best_unclicked_auc"])
    unclicked = f"on the unclicked {own} of at best {best}"
    both = f"mean predicted {_number(means['mean_predicted'])}, true {_number(means['mean_true'])}"
    return [f"CVR on {OVER['cvr_all_impressions']}: {reachable}; {unclicked}; {both}"]


def _reasons(tasks: dict[str, TaskMetrics]) -> list[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for name, task in tasks.items():
        for figure, value in figures_of(task).items():
            if "reason" in value:
                found.setdefault((name, value["reason"]), []).append(TITLES[figure])
    return [f"{name.upper()}: {', '.join(figures)}: {reason}" for (name, reason), figures in found.items()]


def _number(value: float | None) -> str:
    """Four figures that mean something, whatever the size."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
