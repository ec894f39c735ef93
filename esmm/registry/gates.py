"""The gates of a promotion: what the figures of a candidate have to be.

In the words of TensorFlow Model Analysis: a value threshold bounds a figure of the candidate, a change
threshold the difference between candidate and champion. Pure functions of metrics.json and of what earlier
days have found.
"""

from collections.abc import Iterator, Sequence

from esmm.registry.config import PromotionConfig
from esmm.registry.differences import Day, bounds, differences_of, finite, pooled, smallest_difference
from schemas.metrics import OVER, TASKS, Metrics, SliceTask, Slicing, TaskMetrics
from schemas.promotion import DayDifference, Gate

MOST_NAMED = 3  # slices, in a sentence
Limits = tuple[float, float]


def judge(
    metrics: Metrics, config: PromotionConfig, earlier: Sequence[Day], has_champion: bool
) -> list[Gate]:
    """All gates in the order of the report. earlier: days that count beside the metrics' own."""
    gates = [_conversions(metrics, config, earlier)]
    gates += _above_baselines(metrics, config)
    if has_champion:  # the first model has only to be better than none
        gates += _calibrated(metrics, config)
        gates += _calibrated_slices(metrics, config)
        gates += _not_below(differences_of(metrics), config, earlier)
    return gates


def covered(missing: Sequence[str], config: PromotionConfig) -> Gate:
    """Whether a candidate has learnt from the days that it should have. missing: days, ISO."""
    found = f"missing: {', '.join(missing)}" if missing else "none is missing"
    text = f"{found}; at most {config.max_missing_days} may be"
    return Gate(
        name="days of training", kind="value", passed=len(missing) <= config.max_missing_days, text=text
    )


def _conversions(metrics: Metrics, config: PromotionConfig, earlier: Sequence[Day]) -> Gate:
    days = [metrics["ctcvr"]["positives"], *(day.conversions for day in earlier)]
    text = (
        f"{sum(days):,} conversions on {_days(len(days))}, at least {config.min_conversions:,} are asked for"
    )
    return Gate(name="conversions", kind="value", passed=sum(days) >= config.min_conversions, text=text)


def _above_baselines(metrics: Metrics, config: PromotionConfig) -> Iterator[Gate]:
    for baseline, gain in config.baselines.model_dump().items():
        if gain is not None:
            for task in TASKS:
                yield _above_baseline(metrics[task], task, baseline, gain)  # type: ignore[literal-required]


def _above_baseline(found: TaskMetrics, task: str, baseline: str, gain: float) -> Gate:
    auc = finite(found["auc"]["value"])
    other = finite(found["baselines"][baseline]["auc"]) if baseline in found["baselines"] else None
    passed = auc is not None and other is not None and auc > other + gain
    if baseline not in found["baselines"]:
        text = (
            f"the evaluation has no baseline {baseline}: jobs.evaluate --train gives it the training samples"
        )
    elif auc is None or other is None:
        text = f"undefined: {found['auc'].get('reason', 'no number')}"
    else:
        text = f"{auc:.4f}, has to be above {other:.4f}" + (f" by more than {gain:g}" if gain else "")
    return Gate(name=f"{_auc(task)} above {baseline}", kind="value", passed=passed, text=text)


def _calibrated(metrics: Metrics, config: PromotionConfig) -> Iterator[Gate]:
    for task, limits in _limits(config.calibration.model_dump()):
        ratio = metrics[task]["calibration_ratio"]  # type: ignore[literal-required]
        value = finite(ratio["value"])
        passed = _within(value, limits)
        if value is None:
            text = f"undefined: {ratio.get('reason', 'no number')}"
        else:
            text = f"{value:.3f}, has to be {_range(limits)}"
        yield Gate(name=f"calibration ratio of {task.upper()}", kind="value", passed=passed, text=text)


def _calibrated_slices(metrics: Metrics, config: PromotionConfig) -> Iterator[Gate]:
    """A gate per task over all slicings; none where no slice is large enough."""
    for task, limits in _limits(config.slices.model_dump(exclude={"min_positives"})):
        slices = [
            (name, found)
            for slicing in metrics["slicings"]
            for name, found in _slices(slicing, task)
            if found["positives"] >= config.slices.min_positives
        ]
        if slices:
            yield _calibrated_slice(task, limits, slices, config.slices.min_positives)


def _slices(slicing: Slicing, task: str) -> Iterator[tuple[str, SliceTask]]:
    for one in slicing["slices"]:
        yield f"{slicing['name']} {one['label']}", one[task]  # type: ignore[literal-required]


def _calibrated_slice(task: str, limits: Limits, slices: list[tuple[str, SliceTask]], least: int) -> Gate:
    found = [(name, finite(one["calibration_ratio"]["value"])) for name, one in slices]
    broken = [f"{name}: {_number(value)}" for name, value in found if not _within(value, limits)]
    kept = len(found) - len(broken)
    text = f"{kept} of {len(found)} slices with {least:,} positives or more are {_range(limits)}"
    if broken:
        text += f"; not {', '.join(broken[:MOST_NAMED])}{' and others' if len(broken) > MOST_NAMED else ''}"
    name = f"calibration ratio of {task.upper()} in each slice"
    return Gate(name=name, kind="value", passed=not broken, text=text)


def _not_below(
    today: dict[str, DayDifference], config: PromotionConfig, earlier: Sequence[Day]
) -> Iterator[Gate]:
    for task, margin in config.margin.model_dump().items():
        if margin is None:
            continue
        days = [today[task], *(day.differences[task] for day in earlier)]
        yield _non_inferior(f"{_auc(task)} against the champion", days, margin)


def _non_inferior(name: str, days: list[DayDifference], margin: float) -> Gate:
    """One-sided: the lower bound of all days has to be above -margin. days: the judged one first.

    The judged day alone must not show the contrary, whatever the candidates before this one were like.
    """
    today, found = days[0], pooled(days)
    if found is None or today["value"] is None or today["error"] is None:
        text = f"undefined on this day: {today.get('reason', 'no number')}"
        return Gate(name=name, kind="change", passed=False, text=text)
    low, high = bounds(found.value, found.error)[0], bounds(today["value"], today["error"])[1]
    text = (
        f"{found.value:+.4f}, with 95 % confidence above {low:+.4f}, has to be above {-margin:+g}; "
        f"the smallest difference this day can show is {smallest_difference(today['error']):.4f}"
    )
    if found.days > 1:
        pool = smallest_difference(found.error)
        text += f" (it found {today['value']:+.4f}), that of {found.days} days together {pool:.4f}"
    if high <= -margin:
        text += f"; this day alone is with 95 % confidence below {high:+.4f}"
    return Gate(name=name, kind="change", passed=low > -margin and high > -margin, text=text)


def _auc(task: str) -> str:
    return f"AUC of {task.upper()} ({OVER[task]})"


def _limits(section: dict[str, Limits | None]) -> Iterator[tuple[str, Limits]]:
    for task, limits in section.items():
        if limits is not None:
            yield task, limits


def _within(value: float | None, limits: Limits) -> bool:
    return value is not None and limits[0] <= value <= limits[1]


def _range(limits: Limits) -> str:
    return f"from {limits[0]:g} to {limits[1]:g}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
