"""metrics.json from what Spark has found. No files, no Spark."""

from typing import NamedTuple

from cli.version import WRITTEN_BY
from jobs.evaluation import content, judging, scores
from jobs.evaluation.blobs import Arrays
from jobs.evaluation.cuts import Cut
from jobs.evaluation.judging import Judged
from jobs.evaluation.rankings import WEIGHT_UNIT, Totals
from jobs.evaluation.slices import slicings_of
from schemas.metrics import (
    FORMAT,
    TASKS,
    AllImpressions,
    Bin,
    Calibration,
    Metrics,
    PredictionSource,
    TaskMetrics,
)

BASELINES = {"truth": "best", "item_rate": "item"}  # with what begins the names of their rankings


class Sums(NamedTuple):
    """What all shards and rankings come to. found: sums over shards; summaries: per ranking."""

    found: Arrays
    totals: dict[str, Totals]
    summaries: dict[str, Arrays]


def metrics_of(judged: dict[str, Judged], sums: Sums, cuts: list[Cut], source: PredictionSource) -> Metrics:
    """The whole file but for a comparison."""
    tasks = {task: _task(task, judged[task], sums) for task in TASKS}
    metrics = Metrics(
        format=FORMAT,
        ctr=tasks["ctr"],
        cvr=tasks["cvr"],
        ctcvr=tasks["ctcvr"],
        slicings=slicings_of(cuts, judged),
        source=source,
        written_by=WRITTEN_BY,
    )
    if "cvr_all" in sums.totals:
        metrics["cvr_all_impressions"] = _all_impressions(sums)
    return metrics


def _task(task: str, judged: Judged, sums: Sums) -> TaskMetrics:
    scored = {title: f"{kind}_{task}" for title, kind in BASELINES.items()}
    found = content.task_metrics(
        judged,
        {
            title: content.baseline_of(name, sums.totals[name], sums.summaries.get(name, {}), sums.found)
            for title, name in scored.items()
            if name in sums.totals
        },
    )
    if "truth" in found["baselines"]:
        best = found["baselines"]["truth"]["auc"]
        found["share_of_best"] = content.share_of_best(found["auc"]["value"], best)
    return found


def _all_impressions(sums: Sums) -> AllImpressions:
    own, best = (_auc_by_truth(name, sums) for name in ("cvr_all", "best_cvr_all"))
    share = content.share_of_best(own, best)
    judged = AllImpressions(
        auc=own,
        best_auc=best,
        share_of_best=share,
        unclicked_auc=_auc_by_truth("cvr_unclicked", sums),
        best_unclicked_auc=_auc_by_truth("best_cvr_unclicked", sums),
        all=_calibration(sums.found, (0, 1)),
        clicked=_calibration(sums.found, (1,)),
        unclicked=_calibration(sums.found, (0,)),
        calibration=_bins_of_truth(sums.summaries["cvr_all"]),
    )
    if share is None:
        judged["reason"] = (
            "the true probabilities rank no better than chance: there is no share of the best AUC"
        )
    return judged


def _auc_by_truth(name: str, sums: Sums) -> float | None:
    positives, negatives = sums.totals[name].classes
    pairs = positives * negatives
    return float(sums.summaries[name]["wins"][0]) / (2 * pairs) if pairs else None


def _bins_of_truth(summary: Arrays) -> list[Bin]:
    rows, weight, predicted = (part.sum(axis=1, keepdims=True) for part in judging.summary_bins(summary))
    return content.bins_of(rows, weight / WEIGHT_UNIT, predicted)


def _calibration(found: Arrays, clicks: tuple[int, ...]) -> Calibration:
    own = {name: int(sum(found[f"truth_{name}"][list(clicks)])) for name in ("rows", "predicted", "true")}
    means = [own[name] / scores.UNIT / own["rows"] if own["rows"] else None for name in ("predicted", "true")]
    return Calibration(rows=own["rows"], mean_predicted=means[0], mean_true=means[1])
