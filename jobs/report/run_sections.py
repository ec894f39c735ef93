"""The sections about what led to an evaluation: training, data, the run itself."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from jobs.report.blocks import Block, Chart, Listing, Section, Table, Text
from jobs.report.dot_charts import drift_chart
from jobs.report.drawing import ACCENT, INK, OTHER, canvas, label_line, svg_of
from jobs.report.numbers import MISSING, number
from schemas.metrics import Metrics
from schemas.profile import FieldProfile, Profile
from schemas.promotion import Decision

LOSSES = {"loss_ctr": "CTR", "loss_ctcvr": "CTCVR", "loss_cvr": "CVR"}
SCORES = {"auc_ctr": "CTR", "auc_cvr": "CVR", "auc_ctcvr": "CTCVR"}
COLOURS = (ACCENT, OTHER, INK)


def promotion_section(decision: Decision | None) -> Section | None:
    """Whether the run became the champion, gate by gate; None where nobody asked."""
    if decision is None:
        return None
    champion = "there was none" if decision["champion"] is None else f"version {decision['champion']}"
    told = (
        f"Version {decision['version']} of {decision['model']}, trained up to {decision['trained_to']}: "
        f"{decision['decision']}. Champion before: {champion}. Reason: {decision['reason']}."
    )
    rows = [[one["name"], "passed" if one["passed"] else "broken", one["text"]] for one in decision["gates"]]
    table = Table(f"Gates on {decision['day']}", ("gate", "result", "figures"), rows, wordy=True)
    return Section("promotion", "Promotion", "Whether this run is to be served.", [Text(told), table])


def training_section(entries: Sequence[Mapping[str, Any]]) -> Section:
    """The curves of a training log; a line where there is none."""
    lead = "By step. Loss is the mean of -ln p of the label over the impressions since the point before."
    if not entries:
        return Section(
            "training", "Training", lead, [Text("There is no training log (train.jsonl) in this run.")]
        )
    train = [one for one in entries if one["kind"] == "train"]
    scored = [one for one in entries if one["kind"] != "train"]
    speed = {"impressions_per_second": "impressions/s"}
    blocks = [
        _lines_chart("loss", "Training loss of each task", train, LOSSES),
        _lines_chart("auc", "Validation AUC", scored, SCORES),
        _lines_chart("speed", "Impressions per second", train, speed),
        _lines_chart(
            "loader", "Share of the time spent waiting for data", train, {"loader_share": "waiting"}
        ),
    ]
    return Section("training", "Training", lead, [one for one in blocks if one is not None])


def _lines_chart(
    name: str, title: str, entries: Sequence[Mapping[str, Any]], keys: Mapping[str, str]
) -> Chart | None:
    """A line per key over steps; None where the log has none of them."""
    drawn = {key: [(e["step"], e[key]) for e in entries if e.get(key) is not None] for key in keys}
    drawn = {key: points for key, points in drawn.items() if points}
    if not drawn:
        return None
    with canvas(2.5) as (figure, (axes,)):
        for (key, points), colour in zip(drawn.items(), COLOURS, strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, "o-" if len(x) < 30 else "-", color=colour, markersize=3.5)
            if len(keys) > 1:
                label_line(axes, x[-1], y[-1], keys[key], colour)
        axes.margins(x=0.18 if len(keys) > 1 else 0.05, y=0.15)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        svg = svg_of(figure, f"train-{name}", title, f"{', '.join(keys.values())} by step.")
    steps = sorted({step for points in drawn.values() for step, _ in points})
    found = {key: dict(points) for key, points in drawn.items()}
    rows = [[f"{step:,}", *(_plain(found[key].get(step)) for key in drawn)] for step in steps]
    return Chart(title, svg, Table(title, ("step", *(keys[key] for key in drawn)), rows))


def _plain(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.5g}"


def data_section(profiles: Mapping[str, Profile]) -> Section:
    """What the samples are like; `profiles` by the file's name."""
    lead = (
        "Rates, coverage (share of impressions that have a field), list lengths, collisions of ids and drift."
    )
    blocks: list[Block] = []
    for place, profile in enumerate(profiles.values()):
        blocks += [_rates_table(profile), _fields_table(profile)]
        if "against" in profile:
            psi = {name: field["drift"]["psi"] for name, field in profile["fields"].items()}
            blocks.append(drift_chart(place, psi, profile["source"]["against"] or "the other set"))
        if profile["gates"]["broken"]:
            blocks.append(_gates_table(profile))
    if not blocks:
        blocks = [Text("No profile of the samples was given (--profile).")]
    return Section("data", "Data", lead, blocks)


def _rates_table(profile: Profile) -> Table:
    counts, rates = profile["counts"], profile["rates"]
    theirs: Any = profile["against"]["rates"] if "against" in profile else None
    rows = []
    for name, over in (("ctr", "all"), ("cvr", "clicked"), ("ctcvr", "all")):
        row = [name.upper(), over, number(rates[name], ".4%")]  # type: ignore[literal-required]
        rows.append(row + ([number(theirs[name], ".4%")] if theirs else []))
    gates = profile["gates"]
    caption = (
        f"{profile['source']['samples']}: {counts['impressions']:,} impressions of "
        f"{counts['contexts']:,} contexts, "
        f"{sum(profile['quarantine']['lines'].values()):,} lines quarantined, "
        f"{profile['duplicate_sample_ids']:,} repeated ids; "
        f"{gates['judged'] - len(gates['broken'])} of {gates['judged']} gates kept"
    )
    return Table(caption, ("rate", "impressions", "here", *(["other set"] if theirs else [])), rows)


def _fields_table(profile: Profile) -> Table:
    rows = [_field_row(name, field) for name, field in profile["fields"].items()]
    head = ("field", "coverage", "mean", "P99", "max", "buckets", "fill", "ids", "collide", "unseen ids")
    caption = f"Fields of {profile['source']['samples']}, over all impressions; mean, P99, max: ids in a list"
    return Table(caption, head, rows)


def _field_row(name: str, field: FieldProfile) -> list[str]:
    lengths: Mapping[str, Any] = field.get("lengths") or {"mean": None, "p99": None, "max": None}
    drift: Mapping[str, Any] = field.get("drift") or {"unseen_tokens": None}
    return [
        name,
        number(field["coverage"], ".1%"),
        number(lengths["mean"], ",.1f"),
        number(lengths["p99"], ",.0f"),
        number(lengths["max"], ","),
        f"{field['buckets']:,}",
        f"{field['fill']:.1%}",
        "saturated" if field["distinct_ids"] is None else f"{field['distinct_ids']:,.0f}",
        number(field["collision_rate"], ".1%"),
        number(drift["unseen_tokens"], ".2%"),
    ]


def _gates_table(profile: Profile) -> Table:
    rows = [
        [one["gate"], one["field"] or "", "none" if one["found"] is None else f"{one['found']:.5g}"]
        + [json.dumps(one["allowed"])]
        for one in profile["gates"]["broken"]
    ]
    return Table("Broken gates, over all impressions", ("gate", "field", "found", "allowed"), rows)


def run_section(metrics: Metrics, files: Mapping[str, str], stages: Sequence[Mapping[str, Any]]) -> Section:
    """Where everything came from. files: texts of the run folder by name."""
    source = metrics["source"]
    rows = [
        ["predictions", source["predictions"]],
        ["of run", source["run"] or MISSING],
        ["at step", number(source["step"], ",")],
        ["truth", source["truth"] or "not known"],
        ["digest of samples and labels", source["digest"]],
        ["metrics written by", metrics["written_by"]],
    ]
    blocks: list[Block] = [Table("What was judged", ("", ""), rows, wordy=True)]
    if stages:
        timed = [[str(one["name"]), f"{one['seconds']:,.1f}", str(one["command"])] for one in stages]
        blocks.append(Table("Seconds per stage", ("stage", "seconds", "command"), timed, wordy=True))
    titles = {"config.yaml": "Configuration", "command.txt": "Commands", "versions.json": "Versions"}
    blocks += [Listing(f"{title} ({name})", files[name]) for name, title in titles.items() if name in files]
    return Section("run", "The run", "Data, configuration, versions and commands, to do it again.", blocks)
