"""Runs of a comparison as a table: a row per model, mean and deviation over its seeds."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.models.presets import REFERENCE
from benchmarks.models.runs import Compared

# What published work reports of the full Ali-CCP, to stand beside runs on the real logs (docs/models.md).
PUBLISHED = (
    "Published of the full Ali-CCP, AUC of CVR on clicks / CTCVR: ESMM 0.6856 / 0.6532 (its paper), "
    "Multi-DR 0.6929 / 0.6543, ESMM with PLE and a wide cross 0.6952 (mean of 5 seeds), DCN-V2 with PLE "
    "and ESMM CTCVR 0.6694 (mean of 3)."
)

Value = Callable[[Compared], float | None]


@dataclass(frozen=True)
class Column:
    """A figure of every run. form: how its mean is written; spread: of its deviation, None for none."""

    title: str
    value: Value
    form: str = ".4f"


COLUMNS = (
    Column("AUC CTR", lambda run: run["metrics"]["ctr"]["auc"]["value"]),
    Column("AUC CVR, clicked", lambda run: run["metrics"]["cvr"]["auc"]["value"]),
    Column("AUC CTCVR", lambda run: run["metrics"]["ctcvr"]["auc"]["value"]),
    Column("GAUC CTR", lambda run: run["metrics"]["ctr"]["gauc"]["value"]),
    Column("log loss CTCVR", lambda run: run["metrics"]["ctcvr"]["log_loss"]["value"], ".5f"),
    Column("train, s", lambda run: run["train_seconds"], ".0f"),
    Column("parameters", lambda run: float(run["parameters"]), ",.0f"),
)
# With the truth beside: where selection bias shows.
OF_TRUTH = (
    Column("AUC pCVR, all", lambda run: run["metrics"]["cvr_all_impressions"]["auc"]),
    Column("AUC pCVR, unclicked", lambda run: run["metrics"]["cvr_all_impressions"]["unclicked_auc"]),
    Column("pCVR / truth, all", lambda run: _ratio(run, "all"), ".3f"),
    Column("the same, unclicked", lambda run: _ratio(run, "unclicked"), ".3f"),
    Column("the same, clicked", lambda run: _ratio(run, "clicked"), ".3f"),
)
SHARES = (
    Column("CTR", lambda run: _percent(run["metrics"]["ctr"].get("share_of_best")), ".1f"),
    Column("CVR, clicked", lambda run: _percent(run["metrics"]["cvr"].get("share_of_best")), ".1f"),
    Column("CTCVR", lambda run: _percent(run["metrics"]["ctcvr"].get("share_of_best")), ".1f"),
    Column("pCVR, all", lambda run: _percent(run["metrics"]["cvr_all_impressions"]["share_of_best"]), ".1f"),
)
DIFFERENCES = ("ctr", "cvr", "ctcvr")


def has_truth(runs: Sequence[Compared]) -> bool:
    return all("cvr_all_impressions" in run["metrics"] for run in runs)


def rows(runs: Sequence[Compared], columns: Sequence[Column]) -> list[list[str]]:
    """A row per model, in the order of the runs: its name, then `mean ± deviation`."""
    models = list(dict.fromkeys(run["model"] for run in runs))
    return [[model, *(_cell(column, _of(runs, model)) for column in columns)] for model in models]


def differences(runs: Sequence[Compared]) -> list[list[str]]:
    """AUC minus the reference's on the same impressions, with the paired 95 % interval of each seed."""
    found = []
    for run in runs:
        against = run["metrics"].get("against")
        if run["model"] == REFERENCE or against is None:
            continue
        cells = [f"{run['model']}, seed {run['seed']}"]
        for task in DIFFERENCES:
            one = against[task]["auc"]  # type: ignore[literal-required]
            value, low, high = one["value"], one["low"], one["high"]
            cells.append("undefined" if value is None else f"{value:+.4f} [{low:+.4f}, {high:+.4f}]")
        found.append(cells)
    return found


def means(runs: Sequence[Compared], column: Column) -> dict[str, tuple[float, float]]:
    """Mean and deviation by model, of those where the figure exists."""
    found = {}
    for model in dict.fromkeys(run["model"] for run in runs):
        values = [value for run in _of(runs, model) if (value := column.value(run)) is not None]
        if values:
            found[model] = statistics.mean(values), _deviation(values)
    return found


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    marks = "|".join(["---"] * len(head))
    return "\n".join(
        [f"| {' | '.join(head)} |", f"|{marks}|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def _of(runs: Sequence[Compared], model: str) -> list[Compared]:
    return [run for run in runs if run["model"] == model]


def _cell(column: Column, runs: Sequence[Compared]) -> str:
    values = [value for run in runs if (value := column.value(run)) is not None]
    if len(values) < len(runs):
        return "undefined"
    equal = len(set(values)) == 1  # the number of parameters, say, has no deviation worth a word
    return format(values[0], column.form) if equal else mean_and_deviation(values, column.form)


def mean_and_deviation(values: Sequence[float], form: str) -> str:
    """As a cell says them; a single value has no deviation."""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(_deviation(values), form)}" if len(values) > 1 else mean


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _ratio(run: Compared, space: str) -> float | None:
    found = run["metrics"]["cvr_all_impressions"][space]  # type: ignore[literal-required]
    predicted, true = found["mean_predicted"], found["mean_true"]
    return None if predicted is None or not true else predicted / true
