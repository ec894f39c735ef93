"""The section `promotion` of a configuration: what a candidate has to show before it is the champion."""

from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cli.config_files import load_section
from cli.errors import InputError
from esmm.model_config import Section


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("expected [lowest, highest]")
    return limits


Limits = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)
]


class BaselineConfig(Section):
    constant: NonNegativeFloat | None = 0.0
    """How much the AUC of each task has to be above 0.5, a constant's; null: it is not asked for."""

    item_rate: NonNegativeFloat | None = None
    """How much it has to be above that of the item's rate (jobs.evaluate --train); null: not asked for."""


class CalibrationConfig(Section):
    ctr: Limits | None = (0.8, 1.25)
    """Lowest and highest calibration ratio of CTR; null: any."""

    cvr: Limits | None = None
    """Lowest and highest calibration ratio of CVR on clicked impressions; null: any."""

    ctcvr: Limits | None = (0.7, 1.4)
    """Lowest and highest calibration ratio of CTCVR; null: any."""


class SliceConfig(Section):
    min_positives: PositiveInt = 50
    """Positives of a task that a slice must have to be judged on it."""

    ctr: Limits | None = (0.5, 2.0)
    """Lowest and highest calibration ratio of CTR in each slice; null: any."""

    cvr: Limits | None = None
    """Lowest and highest calibration ratio of CVR in each slice; null: any."""

    ctcvr: Limits | None = (0.5, 2.0)
    """Lowest and highest calibration ratio of CTCVR in each slice; null: any."""


class MarginConfig(Section):
    ctr: PositiveFloat | None = None
    """How much AUC of CTR a candidate may lose to the champion, with 95 % confidence; null: any."""

    cvr: PositiveFloat | None = 0.01
    """How much AUC of CVR on clicked impressions it may lose; null: any."""

    ctcvr: PositiveFloat | None = 0.01
    """How much AUC of CTCVR it may lose; null: any."""


class PromotionConfig(Section):
    baselines: BaselineConfig = BaselineConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    slices: SliceConfig = SliceConfig()
    margin: MarginConfig = MarginConfig()
    pool_days: PositiveInt = 7
    """Days, the judged one included, whose differences from the same champion are judged together."""

    min_conversions: NonNegativeInt = 50
    """Conversions that the judged day, or the days judged together, must have."""

    max_missing_days: NonNegativeInt = 1
    """Days that may be missing among those that the candidate had to learn from."""


def load_promotion_config(path: str | None, margin: float | None = None) -> PromotionConfig:
    """The section of a file, or the defaults. margin: of CVR and CTCVR, instead of theirs."""
    found = load_section(path, "promotion", PromotionConfig)
    if margin is None:
        return found
    if not margin > 0:
        raise InputError(f"--margin {margin:g}: expected a number above 0.")
    return found.model_copy(update={"margin": MarginConfig(ctr=found.margin.ctr, cvr=margin, ctcvr=margin)})
