"""The `evaluate` section of a configuration: how impressions are cut into slices."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cli.config_files import load_section
from jobs.evaluation.cuts import Cut
from schemas.predictions import KEPT_FIELD


def _rising(ends: tuple[int, ...]) -> tuple[int, ...]:
    if list(ends) != sorted(set(ends)):
        raise ValueError("expected rising whole numbers")
    return ends


Bounds = Annotated[tuple[int, ...], AfterValidator(_rising)]


class EvaluateConfig(BaseModel):
    """How jobs.evaluate cuts impressions. Fields have to be kept in the predictions: esmm.predict --keep."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    slices: dict[str, Bounds] = Field(default_factory=dict)
    """By field: the upper ends of its ranges; none: its most frequent values."""

    user_bounds: Bounds = (10, 50, 200)
    """Upper ends of the slices by how many impressions a user has in the predictions."""

    train_bounds: Bounds = (0, 10, 100, 1000)
    """Upper ends of the slices by impressions of user and item in training (--train); 0: the new ones."""

    @property
    def cuts(self) -> list[Cut]:
        """By impressions of the user, then by each field."""
        by_user = Cut("impressions of the user", None, self.user_bounds)
        return [by_user, *(cut_by(field, bounds) for field, bounds in self.slices.items())]


def cut_by(field: str, bounds: Bounds) -> Cut:
    """A cut by a field that predictions have kept."""
    return Cut(field, f"{KEPT_FIELD}{field}", bounds)


def load_evaluate_config(path: str | None) -> EvaluateConfig:
    """The section of a file, or the defaults."""
    return load_section(path, "evaluate", EvaluateConfig)
