"""Figures with their intervals as dots in a row each: slices, drift, runs over time."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from jobs.report.blocks import Chart, Table
from jobs.report.drawing import ACCENT, INK, MUTED, canvas, label_line, svg_of
from jobs.report.numbers import estimate, number
from schemas.metrics import OVER, Slicing

MOST_ROWS = 40  # of a chart; the table has all


def slices_chart(place: int, slicing: Slicing, figure_name: str, wholes: Mapping[str, float | None]) -> Chart:
    """A figure by slice, a task below the other, each beside that of all slices together (`wholes`)."""
    slices: list[Any] = slicing["slices"][:MOST_ROWS]
    named = {"auc": "AUC", "calibration_ratio": "Calibration ratio"}[figure_name]
    height = len(wholes) * (0.6 + 0.2 * max(len(slices), 2))
    with canvas(height, len(wholes), shared=False) as (figure, panels):
        for axes, (task, whole) in zip(panels, wholes.items(), strict=True):
            found = [one[task][figure_name] for one in slices]
            _slices_panel(axes, slices, found, whole)
            axes.set_title(f"{task.upper()}, {OVER[task]} impressions", loc="left", color=INK)
        title = f"{named} by {slicing['name']}"
        svg = svg_of(figure, f"slices-{place}-{figure_name}", title, "Dots with 95 % intervals, per task.")
    return Chart(title, svg, _slices_table(title, slicing, figure_name, list(wholes)), _slices_note(slices))


def _slices_panel(axes: Any, slices: list[Any], found: list[Any], whole: float | None) -> None:
    if whole is not None:
        axes.axvline(whole, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
    for row, (one, value) in enumerate(zip(slices, found, strict=True)):
        _dot(axes, row, value, one["small"])
    labels = [f"{one['label']}{' *' if one['small'] else ''}" for one in slices]
    axes.set_yticks(range(len(slices)), [_short(text) for text in labels], color=INK)
    axes.set_ylim(len(slices) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)


def _dot(axes: Any, row: int, found: Mapping[str, Any], small: bool) -> None:
    colour = MUTED if small else ACCENT
    if found["value"] is None:
        text = f"undefined: {_short(found.get('reason', ''), 40)}"
        axes.text(0.02, row, text, color=MUTED, fontsize=8, va="center", transform=axes.get_yaxis_transform())
        return
    if found["low"] is not None:
        axes.hlines(row, found["low"], found["high"], color=colour, linewidth=1.4)
    axes.plot(
        [found["value"]], [row], "o", color=colour, markersize=4.5, fillstyle="none" if small else "full"
    )


def _short(text: str, most: int = 18) -> str:
    safe = text.replace("$", r"\$")  # matplotlib would take it for a formula
    return safe if len(text) <= most else f"{safe[: most - 1]}…"


def _slices_note(slices: Sequence[Mapping[str, Any]]) -> str:
    small = " * Hollow: too few positives to say much." if any(one["small"] for one in slices) else ""
    return f"Dashed: all together.{small}"


def _slices_table(caption: str, slicing: Slicing, figure_name: str, tasks: Sequence[str]) -> Table:
    rows = []
    for task in tasks:
        for one in slicing["slices"]:
            judged: Any = one[task]  # type: ignore[literal-required]
            size = "small" if one["small"] else ""
            counts = (f"{judged['rows']:,}", f"{judged['positives']:,}")
            rows.append([f"{task.upper()}, {one['label']}", estimate(judged[figure_name]), *counts, size])
    return Table(caption, ("slice", "value [95 % interval]", "impressions", "positives", ""), rows)


def drift_chart(place: int, psi: Mapping[str, float | None], against: str) -> Chart:
    """Population stability index by field, the largest first."""
    known = sorted(((v, k) for k, v in psi.items() if v is not None), reverse=True)[:MOST_ROWS]
    with canvas(0.75 + 0.23 * max(len(known), 2)) as (figure, (axes,)):
        for limit, text in ((0.1, "0.1: stable below"), (0.25, "0.25: a shift above")):
            if known and known[0][0] > limit / 3:
                axes.axvline(limit, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
                label_line(axes, limit, len(known) - 0.6, text, MUTED, va="bottom")
        axes.hlines(range(len(known)), 0, [v for v, _ in known], color=ACCENT, linewidth=1)
        axes.plot([v for v, _ in known], range(len(known)), "o", color=ACCENT, markersize=4)
        axes.set_yticks(range(len(known)), [_short(k) for _, k in known], color=INK)
        axes.set(ylim=(len(known) - 0.4, -0.6), xlabel="population stability index (PSI)")
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        title = "Drift by field"
        svg = svg_of(figure, f"drift-{place}", title, f"PSI against {against}.")
    rows = [[k, number(v)] for k, v in psi.items()]
    return Chart(title, svg, Table(f"PSI against {against}", ("field", "PSI"), rows))


def over_time_chart(task: str, key: str, runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Chart:
    """A figure of all runs in their order. With many the marks thin out and the intervals become a band."""
    named = {"auc": "AUC", "calibration_ratio": "calibration ratio"}[key]
    known = [(place, one) for place, (_, one) in enumerate(runs, 1) if one["value"] is not None]
    places = [place for place, _ in known]
    values = [one["value"] for _, one in known]
    lows = [one["value"] if one["low"] is None else one["low"] for _, one in known]
    highs = [one["value"] if one["high"] is None else one["high"] for _, one in known]
    with canvas(2.1) as (figure, (axes,)):
        if key == "calibration_ratio":
            axes.axhline(1, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        if len(known) > 30:
            axes.fill_between(places, lows, highs, color=ACCENT, alpha=0.25, linewidth=0)
            axes.plot(places, values, color=ACCENT, linewidth=1)
        else:
            axes.vlines(places, lows, highs, color=ACCENT, linewidth=1.4)
            axes.plot(places, values, "o-", color=ACCENT, markersize=4, linewidth=0.8)
        axes.set_xlim(0.5, len(runs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("run, by its number in the table")
        title = f"{named[0].upper()}{named[1:]} of {task.upper()}, {OVER[task]} impressions"
        svg = svg_of(figure, f"time-{task}-{key}", title, f"{len(known)} of {len(runs)} runs, oldest first.")
    rows = [[name, estimate(one)] for name, one in runs]
    return Chart(title, svg, Table(title, ("run", "value [95 % interval]"), rows))
