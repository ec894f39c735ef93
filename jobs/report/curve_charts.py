"""ROC, precision and recall, calibration: one drawing per task."""

from collections.abc import Sequence

import numpy as np

from jobs.report.blocks import Chart, Table
from jobs.report.drawing import ACCENT, BAND, INK, MUTED, OTHER, canvas, label_line, log_axes, svg_of
from jobs.report.numbers import number
from schemas.metrics import OVER, Bin, ScoreRange, TaskMetrics

SHOWN_POINTS = 20  # of a curve, in the table below it


def roc_chart(task: str, found: TaskMetrics) -> Chart:
    """Rates of true and false positives at every threshold, beside chance."""
    points = found["curves"]["roc"]
    x, y = np.array(points).T
    name = task.upper()
    with canvas(3.4) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.plot(x, y, color=ACCENT)
        place = len(x) // 2
        label_line(
            axes, x[place], y[place], f"{name}: AUC {number(found['auc']['value'])}", ACCENT, xytext=(8, -8)
        )
        label_line(axes, 0.72, 0.68, "chance: 0.5", MUTED, va="top")
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="negatives above the threshold (false positive rate)")
        axes.set_ylabel("positives above it (true positive rate)")
        title = f"ROC of {name}, {OVER[task]} impressions"
        svg = svg_of(figure, f"roc-{task}", title, f"AUC {number(found['auc']['value'])}; chance is 0.5.")
    return Chart(title, svg, _points_table(title, ("false positive rate", "true positive rate"), points))


def pr_chart(task: str, found: TaskMetrics) -> Chart:
    """Precision over recall, beside the share of positives, which is what chance reaches."""
    points = found["curves"]["pr"]
    x, y = np.array(points).T
    rate = found["mean_actual"] or 0.0
    name = task.upper()
    with canvas(3.4) as (figure, (axes,)):
        axes.axhline(rate, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.plot(x, y, color=ACCENT)
        top = float(max(y.max(), rate)) * 1.08
        place = len(x) // 4
        named = f"{name}: PR-AUC {number(found['pr_auc']['value'])}"
        label_line(axes, x[place], y[place], named, ACCENT, xytext=(6, 8))
        label_line(axes, 0.01, rate, f"chance: {rate:.3g}", MUTED, xytext=(0, 3), va="bottom")
        axes.set(xlim=(0, 1), ylim=(0, top), xlabel="share of the positives found (recall)")
        axes.set_ylabel("share of positives among them (precision)")
        title = f"Precision and recall of {name}, {OVER[task]} impressions"
        about = f"{named}; chance reaches the rate of positives, {rate:.3g}."
        svg = svg_of(figure, f"pr-{task}", title, about)
    return Chart(title, svg, _points_table(title, ("recall", "precision"), points))


def _points_table(caption: str, head: tuple[str, str], points: Sequence[Sequence[float]]) -> Table:
    step = max(1, len(points) // SHOWN_POINTS)
    shown = [*points[::step], points[-1]] if (len(points) - 1) % step else points[::step]
    return Table(caption, head, [[f"{value:.4f}" for value in point] for point in shown])


def calibration_chart(task: str, found: TaskMetrics) -> Chart:
    """Rate of positives by predicted probability, and how many impressions have it, both by logarithm."""
    bins = found["curves"]["calibration"]
    name = task.upper()
    with canvas(4.3, 2, (3, 1)) as (figure, (axes, below)):
        shown = _positive(bins)
        ends = _ends(shown)
        axes.plot(ends, ends, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        _draw_bins(axes, shown, ACCENT)
        label_line(axes, ends[1], ends[1], "calibrated", MUTED, ha="right", xytext=(-4, 8))
        log_axes(axes, ends)
        axes.set_ylabel("rate of positives")
        _draw_histogram(below, found["curves"]["histogram"])
        below.set(xlabel=f"predicted probability of {name}", xlim=ends)
        title = f"Calibration of {name}, {OVER[task]} impressions"
        ratio = number(found["calibration_ratio"]["value"], ".3f")
        about = f"{len(bins)} bins of about as many impressions, with 95 % intervals; ratio {ratio}."
        svg = svg_of(figure, f"calibration-{task}", title, about)
    note = (
        "Above the dashed line the model promises too little, below it too much. Below: impressions by score."
    )
    return Chart(title, svg, bins_table(title, bins), note + _left_out(bins, shown))


def _draw_histogram(axes: object, ranges: Sequence[ScoreRange]) -> None:
    lows = [one["low"] for one in ranges]
    widths = [one["high"] - one["low"] for one in ranges]
    rows = [one["rows"] for one in ranges]
    axes.bar(lows, rows, width=widths, align="edge", color=BAND, linewidth=0)  # type: ignore[attr-defined]
    axes.set_yticks([])  # type: ignore[attr-defined]
    axes.set_ylabel("impressions")  # type: ignore[attr-defined]
    axes.grid(False)  # type: ignore[attr-defined]


def _positive(bins: Sequence[Bin]) -> list[Bin]:
    """Those that have a place on logarithmic axes."""
    return [one for one in bins if one["mean_predicted"] > 0 and one["mean_actual"] > 0]


def _left_out(bins: Sequence[Bin], shown: Sequence[Bin]) -> str:
    num = len(bins) - len(shown)
    return f" {num} bins without positives have no logarithm and are only in the table." if num else ""


def _ends(bins: Sequence[Bin]) -> tuple[float, float]:
    values = [one[key] for one in bins for key in ("mean_predicted", "mean_actual")]
    return (min(values) / 1.4, min(max(values) * 1.4, 1.0)) if values else (0.001, 1.0)


def _draw_bins(axes: object, bins: Sequence[Bin], colour: str) -> None:
    x = np.array([one["mean_predicted"] for one in bins])
    y = np.array([one["mean_actual"] for one in bins])
    lowest = y.min() / 3 if len(y) else 1e-9
    low = np.array([max(one["low"], lowest) for one in bins])
    high = np.array([one["high"] for one in bins])
    axes.vlines(x, low, high, color=colour, linewidth=1, alpha=0.55)  # type: ignore[attr-defined]
    axes.plot(x, y, "o", color=colour, markersize=3)  # type: ignore[attr-defined]


def bins_table(caption: str, bins: Sequence[Bin]) -> Table:
    """The numbers of a calibration."""
    rows = [
        [
            f"{one['mean_predicted']:.5f}",
            f"{one['mean_actual']:.5f}",
            f"{one['low']:.5f} to {one['high']:.5f}",
            f"{one['rows']:,}",
            f"{one['positives']:,}",
        ]
        for one in bins
    ]
    return Table(caption, ("mean predicted", "rate", "95 % interval", "impressions", "positives"), rows)


def two_spaces_chart(everywhere: Sequence[Bin], clicked: Sequence[Bin]) -> Chart:
    """p_cvr against what it should be: on all impressions the true probability, on clicked ones the rate."""
    with canvas(3.6) as (figure, (axes,)):
        shown = _positive(everywhere), _positive(clicked)
        ends = _ends([*shown[0], *shown[1]])
        axes.plot(ends, ends, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        for bins, colour in zip(shown, (ACCENT, OTHER), strict=True):
            _draw_bins(axes, bins, colour)
        axes.text(0.03, 0.95, "● all impressions (true p_cvr)", color=ACCENT, transform=axes.transAxes)
        axes.text(0.03, 0.88, "● clicked ones (conversions)", color=OTHER, transform=axes.transAxes)
        label_line(axes, ends[1], ends[1], "calibrated", INK, ha="right", xytext=(-12, -14))
        log_axes(axes, ends)
        axes.set(xlabel="predicted p_cvr", ylabel="mean true p_cvr, or rate")
        title = "p_cvr on all impressions and on clicked ones"
        svg = svg_of(figure, "spaces", title, "Calibration in both spaces, with intervals on clicked ones.")
    return Chart(title, svg, bins_table("p_cvr on all impressions, by the true p_cvr", everywhere))
