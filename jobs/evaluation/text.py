"""Metrics for a person: a line per task, against the best reachable AUC."""

from typing import Any

from cli.text_table import aligned, with_rule
from schemas.metrics import OVER, Metrics, TaskMetrics

HEADINGS = (
    "task",
    "impressions",
    "AUC",
    "+-",
    "best",
    "share",
    "rows",
    "positives",
    "log loss",
    "pred.",
    "actual",
)


def format_table(metrics: Metrics) -> str:
    """Which task over which impressions, and why a figure is missing where one is."""
    lines = [HEADINGS, *(_task_line(name, metrics[name]) for name in ("ctr", "cvr", "ctcvr"))]
    if "cvr_all_impressions" in metrics:
        lines.append(_all_impressions_line(metrics))
    return "\n".join([*with_rule(aligned(lines, left=2)), *_reasons(metrics)])


def _task_line(name: str, task: TaskMetrics) -> tuple[str, ...]:
    return (
        name.upper(),
        OVER[name],
        _number(task["auc"], ".4f"),
        _number(task["auc_standard_error"], ".4f"),
        _number(task.get("best_auc"), ".4f"),
        _number(task.get("share_of_best"), ".1%"),
        f"{task['rows']:,}",
        f"{task['positives']:,}",
        _number(task["log_loss"], ".5f"),
        _number(task["mean_predicted"], ".5f"),
        _number(task["mean_actual"], ".5f"),
    )


def _all_impressions_line(metrics: Metrics) -> tuple[str, ...]:
    judged = metrics["cvr_all_impressions"]
    calibration = judged["all"]
    aucs = (_number(judged["auc"], ".4f"), "-", _number(judged["best_auc"], ".4f"))
    means = (_number(calibration["mean_predicted"], ".5f"), _number(calibration["mean_true"], ".5f"))
    share = _number(judged["share_of_best"], ".1%")
    return ("CVR", OVER["cvr_all_impressions"], *aucs, share, f"{calibration['rows']:,}", "-", "-", *means)


def _reasons(metrics: Metrics) -> list[str]:
    parts: dict[str, Any] = dict(metrics)
    return [f"{name}: {part['reason']}" for name, part in parts.items() if "reason" in part]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
