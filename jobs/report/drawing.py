"""Charts as SVG that stands inside a page: both themes, no ids twice, the same bytes for the same numbers."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Colours that no chart has of its own: the page's style sheet says what they are, in either theme.
INK, MUTED, RULE, ACCENT, OTHER, BAND = (f"#0{n}0{n}0{n}" for n in range(1, 7))
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    OTHER: "var(--other)",
    BAND: "var(--band)",
}
WIDTH = 4.6  # inches: 331 units, about the pixels of a phone, so that text is never smaller than drawn

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@contextmanager
def canvas(
    height: float, rows: int = 1, ratios: tuple[float, ...] = (), shared: bool = True
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with axes below each other; in our style on every machine. shared: they share x."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        options = {"height_ratios": ratios} if ratios else {}
        axes = figure.subplots(rows, 1, sharex=shared, squeeze=False, gridspec_kw=options)
        yield figure, list(axes[:, 0])


def svg_of(figure: Figure, name: str, title: str, description: str) -> Markup:
    """The drawing as an element of the page. name: in front of all its ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r".*?(<svg)", r"\1", stream.getvalue(), count=1, flags=re.S)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"<[^>]*>", lambda tag: _with_ids_of(name, tag[0]), text)
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", text)  # the family is the page's
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<svg [^>]*viewBox=\"([^\"]*)\"[^>]*>", r'<svg role="img" viewBox="\1" @names@>', text)
    ids = f'aria-labelledby="{name}-title {name}-desc"'
    told = (
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )
    head, _, rest = text.partition("@names@>")
    return Markup(f"{head}{ids}>{told}{rest}")


def _with_ids_of(name: str, tag: str) -> str:
    """A tag whose ids, and references to some, begin with a name. Between tags stand labels, as they are."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)


def log_axes(axes: Axes, ends: tuple[float, float]) -> None:
    """Logarithmic axes that name powers of ten, and 2 and 5 times them where they span less than two."""
    steps = (1.0, 2.0, 5.0) if ends[1] / ends[0] < 100 else (1.0,)
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def label_line(axes: Axes, x: float, y: float, text: str, colour: str, **options: object) -> None:
    """A line's name beside it, in its colour."""
    settings: dict[str, object] = {"xytext": (4, 0), "va": "center", "ha": "left"} | options
    axes.annotate(text, (x, y), textcoords="offset points", color=colour, fontsize=8.5, **settings)  # type: ignore[arg-type]
