"""The contract of a calibration: one line per task, fitted by jobs.fit_calibration.

    q = sigmoid(a logit(p) + b),    pCTCVR = pCTR * pCVR

Platt's scaling (1999) on the logits of a model: `a` above 0 keeps the order of the impressions, and with it
every AUC of CTR and of CVR.
"""

import math
from typing import Any, Literal, NotRequired, TypedDict, cast

from cli.errors import InputError
from storage.json_files import read_json

FORMAT = 1
TASKS: tuple[Literal["ctr", "cvr"], ...] = ("ctr", "cvr")  # that have a line; CTCVR is their product

# A probability of exactly 0 or 1 has no logit: as evaluation does, take float32's neighbours instead.
LOWEST = 2.0**-149
HIGHEST = 1 - 2.0**-24


class Line(TypedDict):
    """One task's line, and what it was fitted on: rows with a label, log loss a mean over them."""

    a: float
    b: float
    rows: int
    positives: int
    log_loss_before: float
    log_loss_after: float


class Fitted(TypedDict):
    """The predictions that it was fitted on; run and step are absent for another model's."""

    predictions: str
    run: NotRequired[str]
    step: NotRequired[int]


class Calibration(TypedDict):
    """The file."""

    format: int
    tasks: dict[str, Line]
    fitted_on: Fitted
    written_by: str


def calibrated(p: Any, a: float, b: float) -> Any:
    """[N] of p [N], float64 of numpy or of torch: the formula above, as odds.

    A power too large for float64 is infinite, and its probability then 0.
    """
    inside = p.clip(LOWEST, HIGHEST)
    return 1 / (1 + math.exp(-b) * ((1 - inside) / inside) ** a)


def read(path: str) -> Calibration:
    """A calibration that has been written, or an `InputError`."""
    content = read_json(path)
    advice = "Give the --out file of jobs.fit_calibration."
    if not isinstance(content.get("tasks"), dict) or "format" not in content:
        raise InputError(f"{path}: expected a calibration, found another JSON file. {advice}")
    if content["format"] != FORMAT:
        raise InputError(
            f"{path}: expected a calibration of format {FORMAT}, found {content['format']!r}. "
            "Fit it again with jobs.fit_calibration."
        )
    for task in TASKS:
        if wrong := _mistake(content["tasks"].get(task)):
            raise InputError(
                f"{path}: expected for {task} a number a above 0 and a number b, found {wrong}. {advice}"
            )
    return cast(Calibration, content)


def _mistake(line: Any) -> str | None:
    """What is wrong with the line of a task, if something is."""
    if not isinstance(line, dict):
        return "no such task"
    numbers: list[Any] = [line.get("a"), line.get("b")]
    fine = all(type(x) in (int, float) and math.isfinite(x) and abs(x) < 700 for x in numbers)
    return None if fine and line["a"] > 0 else f"a={numbers[0]!r} and b={numbers[1]!r}"
