"""A chart of lines, one for each model, over a share of the samples."""

from collections.abc import Mapping, Sequence

from benchmarks.models.presets import REFERENCE
from jobs.report.blocks import Chart, Table
from jobs.report.drawing import ACCENT, INK, MUTED, canvas, label_line, svg_of

Points = Sequence[Sequence[float]]  # of a line: (share, value), by rising share
GAP = 0.055  # of the axis between two names


def curves_chart(name: str, lines: Mapping[str, Points], numbers: Table) -> Chart:
    """Lines over a logarithmic axis of shares, with their names at their ends. name: of the drawing's ids."""
    with canvas(3.4) as (figure, (axes,)):
        for model, points in lines.items():
            shares, values = zip(*points, strict=True)
            own = model == REFERENCE
            axes.plot(
                shares, values, "o-", color=_colour(model), markersize=3.5, linewidth=1.9 if own else 1.1
            )
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{share:.0%}" for share in shares])
        axes.minorticks_off()
        axes.set_xlim(shares[0] * 0.9, shares[-1] * 4.5)  # room for the names
        low, high = axes.get_ylim()
        ends = {model: points[-1][1] for model, points in lines.items()}
        gap = GAP * (high - low)
        names = spread(ends, gap)
        axes.set_ylim(min([low, *names.values()]) - gap, max([high, *names.values()]) + gap)
        for model, place in names.items():
            label_line(axes, shares[-1], place, model, _colour(model))
        axes.set_xlabel("share of the training samples")
        svg = svg_of(figure, name, numbers.caption, f"{', '.join(lines)} by share of the samples.")
    return Chart(numbers.caption, svg, numbers)


def _colour(model: str) -> str:
    if model == REFERENCE:
        return ACCENT
    return INK if model == "esmm_ns" else MUTED


def spread(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """The same in the same order, each at least `gap` above the one below it, with the same middle."""
    moved: dict[str, float] = {}
    last = float("-inf")
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = max(place, last + gap)
        moved[name] = last
    down = sum(moved[name] - place for name, place in places.items()) / len(places)
    return {name: place - down for name, place in moved.items()}
