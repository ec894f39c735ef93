"""compare.html: the tables of a comparison with a chart of each AUC, made of the report's own parts."""

from collections.abc import Mapping, Sequence

from benchmarks.models import summary
from benchmarks.models.presets import REFERENCE
from benchmarks.models.runs import Compared
from benchmarks.models.study import Study
from benchmarks.models.summary import Column
from jobs.report.blocks import Chart, Listing, Section, Table, Text
from jobs.report.drawing import ACCENT, INK, MUTED, canvas, svg_of
from jobs.report.page import page

Blocks = list[Table | Chart | Text | Listing]


def compare_page(
    runs: Sequence[Compared],
    frozen: str,
    about: Mapping[str, str],
    note: str,
    studies: Sequence[Study] = (),
) -> str:
    """frozen: the list of configurations as it was written before the test half was read. about: what each
    model is. note: what all runs have in common. studies: to be shown beside."""
    truth = summary.has_truth(runs)
    aucs = (*summary.COLUMNS[:3], *(summary.OF_TRUTH[:1] if truth else ()))
    charts: Blocks = [_chart(place, runs, column) for place, column in enumerate(aucs)]
    sections = [
        Section("figures", "Figures", note, [_table("Mean ± deviation over seeds", runs, summary.COLUMNS)]),
        Section("charts", "AUC by model", "Mean and deviation over seeds.", charts),
    ]
    if truth:
        lead = "What pCVR is over impressions nobody clicked, which the truth of the demo logs tells."
        tables: Blocks = [
            _table("pCVR against the truth; a ratio of 1 is calibrated", runs, summary.OF_TRUTH),
            _table("Share of the way from 0.5 to the best possible AUC, %", runs, summary.SHARES),
        ]
        sections.append(Section("truth", "Against the truth", lead, tables))
    differences = Table(
        f"AUC minus that of {REFERENCE} with the same seed [95 % interval, clustered by user]",
        ("run", "CTR", "CVR, clicked", "CTCVR"),
        summary.differences(runs),
    )
    sections.append(
        Section("differences", "Differences", "On the same impressions, paired by user.", [differences])
    )
    sections += [study.section for study in studies]
    sections.append(_what_was_compared(frozen, about))
    return page("Models compared", sections)


def _table(caption: str, runs: Sequence[Compared], columns: Sequence[Column]) -> Table:
    head = ("model", *(column.title for column in columns))
    return Table(caption, head, summary.rows(runs, columns))


def _what_was_compared(frozen: str, about: Mapping[str, str]) -> Section:
    models = Table("Models", ("model", "what it is"), list(about.items()), wordy=True)
    listing = Listing("The list of configurations, written before the test half was read", frozen)
    return Section("models", "What was compared", "docs/models.md says more.", [models, listing])


def _chart(place: int, runs: Sequence[Compared], column: Column) -> Chart:
    found = summary.means(runs, column)
    with canvas(0.6 + 0.22 * max(len(found), 2)) as (figure, (axes,)):
        for row, (mean, deviation) in enumerate(found.values()):
            axes.hlines(row, mean - deviation, mean + deviation, color=ACCENT, linewidth=1.4)
            axes.plot([mean], [row], "o", color=ACCENT, markersize=4.5)
        if REFERENCE in found:
            axes.axvline(found[REFERENCE][0], color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(found)), list(found), color=INK)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        svg = svg_of(figure, f"models-{place}", column.title, "A dot per model, with the seeds' deviation.")
    numbers = Table(column.title, ("model", "mean ± deviation"), summary.rows(runs, [column]))
    return Chart(column.title, svg, numbers, f"Dashed: {REFERENCE}.")
