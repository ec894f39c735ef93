"""The sections about an evaluation, from metrics.json."""

from collections.abc import Mapping
from typing import Any

from jobs.report.blocks import Block, Figure, Headline, Section, Table, Text
from jobs.report.curve_charts import calibration_chart, pr_chart, roc_chart, two_spaces_chart
from jobs.report.dot_charts import slices_chart
from jobs.report.numbers import MISSING, estimate, interval, number
from schemas.calibration import Calibration
from schemas.metrics import COMPARED, MEANING, OVER, TASKS, TITLES, Against, Metrics, TaskMetrics

WHERE = {"ctr": "on all impressions", "cvr": "on clicked impressions", "ctcvr": "on all impressions"}


def tasks_of(metrics: Metrics) -> dict[str, TaskMetrics]:
    """The three tasks by name."""
    return {"ctr": metrics["ctr"], "cvr": metrics["cvr"], "ctcvr": metrics["ctcvr"]}


def verdict(metrics: Metrics) -> Section:
    """The AUCs, and how they stand to another run's where there is one."""
    figures = []
    for task, found in tasks_of(metrics).items():
        auc = found["auc"]
        value = number(auc["value"])
        told = interval(auc) if auc["value"] is not None else f"undefined: {auc.get('reason', '')}"
        figures.append(Figure(task.upper(), WHERE[task], value, told, _beside(found)))
    blocks: list[Block] = [Headline(figures)]
    if "against" in metrics:
        blocks += [Text(_told(metrics["against"])), _against_table(metrics["against"])]
    lead = (
        "AUC: the probability that a positive scores above a negative; 0.5 is chance, 1 is perfect. "
        "With 95 % intervals, users as clusters."
    )
    return Section("verdict", "Verdict", lead, blocks)


def _beside(found: TaskMetrics) -> str:
    truth = found["baselines"].get("truth")
    if truth is None or truth["auc"] is None:
        return f"{found['positives']:,} positives of {found['rows']:,}"
    share = found.get("share_of_best")
    told = "" if share is None else f", {share:.0%} of the way there from chance"
    return f"best possible {truth['auc']:.4f}{told}"


def _told(against: Against) -> str:
    """`AUC against RUN: CTR better, CVR not distinguishable, CTCVR better. Of 30 figures: 12 better, ...`"""
    aucs = [
        f"{task.upper()} {_differences(against, task)['auc']['verdict'] or 'undefined'}" for task in TASKS
    ]
    words = [one["verdict"] for task in TASKS for one in _differences(against, task).values()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("better", "worse", "not distinguishable"))
    return f"AUC against {against['run']}: {', '.join(aucs)}. Of {len(words)} figures: {counts}."


def _differences(against: Against, task: str) -> Mapping[str, Any]:
    return dict(against)[task]  # type: ignore[return-value]


def _against_table(against: Against) -> Table:
    rows = []
    for name in COMPARED:
        for task in TASKS:
            one = _differences(against, task).get(name)
            if one is None:
                continue
            smallest = number(one["smallest"], ".4f")
            judged = one["verdict"] or one.get("reason", MISSING)
            rows.append(
                [f"{TITLES[name]}, {task.upper()}", OVER[task], estimate(one, "+.4f"), smallest, judged]
            )
    head = ("figure", "impressions", "difference [95 % interval]", "detectable", "verdict")
    caption = f"This run minus {against['run']}; detectable: what this set shows with a chance of 80 %"
    return Table(caption, head, rows, wordy=True)


def metrics_section(metrics: Metrics) -> Section:
    """Every figure of every task with its interval and baselines."""
    blocks: list[Block] = [
        _table_of(task, found, task == TASKS[0]) for task, found in tasks_of(metrics).items()
    ]
    if "cvr_all_impressions" in metrics:
        blocks.append(_truth_table(metrics))
    lead = (
        "Every figure with its 95 % interval, beside the mean rate as a constant score and, where they are "
        "known, the truth and the item's rate in the training samples."
    )
    return Section("metrics", "Metrics", lead, blocks)


def _table_of(task: str, found: TaskMetrics, explained: bool) -> Table:
    """explained: with a last column that says what each figure is, which the first table is enough for."""
    bases = found["baselines"]
    values: dict[str, Any] = dict(found)
    rows = []
    for name in COMPARED:
        others = [number(dict(base).get(name)) for base in bases.values()]  # type: ignore[arg-type]
        rows.append([TITLES[name], estimate(values[name]), *others, MEANING[name]])
    blank = [""] * len(bases)
    rows.append(
        ["ECE if calibrated", number(found["ece_of_calibrated"]), *blank, MEANING["ece_of_calibrated"]]
    )
    for name in ("mean_predicted", "mean_actual"):
        rows.append([name.replace("_", " "), number(values[name], ".5f"), *blank, MEANING[name]])
    if "share_of_best" in found:
        rows.append(
            ["share of best", number(found["share_of_best"], ".1%"), *blank, MEANING["share_of_best"]]
        )
    counts = f"{found['rows']:,} impressions, {found['positives']:,} positives, {found['users']:,} users"
    caption = f"{task.upper()} on {OVER[task]} impressions: {counts}"
    head = ["figure", "value [95 % interval]", *(name.replace("_", " ") for name in bases), "what it is"]
    if not explained:
        return Table(caption, head[:-1], [row[:-1] for row in rows])
    return Table(caption, head, rows, wordy=True)


def _truth_table(metrics: Metrics) -> Table:
    found = metrics["cvr_all_impressions"]
    spaces: dict[str, Any] = {
        "all": found["all"],
        "clicked": found["clicked"],
        "not clicked": found["unclicked"],
    }
    rows = []
    for name, one in spaces.items():
        both = one["mean_true"] and one["mean_predicted"] is not None
        ratio = number(one["mean_predicted"] / one["mean_true"] if both else None, ".3f")
        means = (number(one["mean_predicted"], ".5f"), number(one["mean_true"], ".5f"))
        rows.append([name, f"{one['rows']:,}", *means, ratio])
    aucs = f"AUC {number(found['auc'])} of at best {number(found['best_auc'])}"
    if "unclicked_auc" in found:  # not in files of before
        own, best = number(found["unclicked_auc"]), number(found["best_unclicked_auc"])
        aucs = f"{aucs}, on the unclicked {own} of at best {best}"
    reason = f" ({found['reason']})" if "reason" in found else ""
    caption = f"p_cvr by the true p_cvr, on every impression: {aucs}{reason}"
    return Table(caption, ("impressions", "rows", "mean predicted", "mean true", "ratio"), rows)


def curves_section(metrics: Metrics) -> Section:
    """ROC and PR of every task that has them."""
    blocks: list[Block] = []
    for task, found in tasks_of(metrics).items():
        if found["curves"]["roc"]:
            blocks += [roc_chart(task, found), pr_chart(task, found)]
        else:
            blocks.append(Text(f"{task.upper()} on {OVER[task]} impressions: {_reason(found)}, so no curve."))
    lead = "What is gained and lost at each threshold; a curve further from the dashed line ranks better."
    return Section("curves", "Ranking", lead, blocks)


def _reason(found: TaskMetrics) -> str:
    return found["auc"].get("reason", "undefined")


def calibration_section(metrics: Metrics) -> Section:
    """Predicted against actual rates."""
    blocks: list[Block] = []
    for task, found in tasks_of(metrics).items():
        if any(one["positives"] for one in found["curves"]["calibration"]):
            blocks.append(calibration_chart(task, found))
        else:
            blocks.append(Text(f"{task.upper()} on {OVER[task]} impressions: {_reason(found)}, so no curve."))
    if "calibration" in metrics["source"]:
        blocks.append(_lines_table(metrics, metrics["source"]["calibration"]))
    lead = "Of impressions that are predicted at 2 %, 2 % should be positive. Bars are 95 % intervals."
    return Section("calibration", "Calibration", lead, blocks)


def _lines_table(metrics: Metrics, calibration: Calibration) -> Table:
    """What was done to the probabilities; and to their ECE, where the run compared with says it."""
    rows = []
    for task, line in calibration["tasks"].items():
        lost = f"{line['log_loss_before']:.5f} to {line['log_loss_after']:.5f}"
        counts = f"{line['rows']:,}, {line['positives']:,}"
        rows.append([task.upper(), number(line["a"]), number(line["b"]), counts, lost])
    head = ["task", "a", "b", "rows, positives of the fit", "log loss there"]
    if "against" in metrics:
        head += [f"ECE of {metrics['against']['run']}", "ECE here"]
        for row, task in zip(rows, calibration["tasks"], strict=True):
            row += _both_eces(metrics, metrics["against"], task)
    caption = (
        f"Calibrated by logit(q) = a logit(p) + b, fitted to {calibration['fitted_on']['predictions']}; "
        "p_ctcvr is the product"
    )
    return Table(caption, head, rows)


def _both_eces(metrics: Metrics, against: Against, task: str) -> list[str]:
    ours = tasks_of(metrics)[task]["ece"]["value"]
    difference = _differences(against, task)["ece"]["value"]
    known = ours is not None and difference is not None
    return [number(ours - difference if known else None), number(ours)]


def spaces_section(metrics: Metrics) -> Section | None:
    """p_cvr where nobody can see it, where the truth is known."""
    if "cvr_all_impressions" not in metrics:
        return None
    bins = metrics["cvr_all_impressions"]["calibration"]
    if not bins:
        return None
    clicked = metrics["cvr"]["curves"]["calibration"]
    lead = (
        "Conversions are seen only after clicks, but p_cvr is used on every impression. Here the truth is "
        "known."
    )
    return Section("spaces", "All impressions and clicked ones", lead, [two_spaces_chart(bins, clicked)])


def slices_section(metrics: Metrics) -> Section | None:
    """AUC and calibration by slice."""
    blocks: list[Block] = []
    for place, slicing in enumerate(metrics["slicings"]):
        for name in ("auc", "calibration_ratio"):
            wholes = {task: dict(found)[name]["value"] for task, found in tasks_of(metrics).items()}  # type: ignore[index]
            blocks.append(slices_chart(place, slicing, name, wholes))
    lead = (
        "Where the model is better or worse than on the whole. A dot is a value, its bar the 95 % interval."
    )
    return Section("slices", "Slices", lead, blocks) if blocks else None
