"""Numeric fields: one of them, and what is known of its values in the samples that a model is trained on.

A sample has the value as the logs have it, as float32, and NaN where there is none. What a model makes of it
is decided here: `Number` says how a value is bent, `Statistics` where the middle of the bent ones is.
"""

from dataclasses import dataclass
from typing import ClassVar, TypedDict

from schemas.fields import Sided

MOST_QUANTILES = 1024


@dataclass(frozen=True)
class Number(Sided):
    """One numeric field: a value that is more or less, such as a price or an age.

    name, side, source, meaning: as of a `schemas.fields.Field`. A value x counts as

        y = min(max(x, low), high)           where clip is (low, high)
        z = sign(y) ln(1 + |y|)              where log1p is set, else y; for amounts and counts

    and z is standardised with mean and deviation of the training samples. quantiles: into so many parts of
    about as many impressions each is z divided, and the part is what the model sees; None: it sees z itself.

    Raises ValueError for what no number can be.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for schemas.schema_file

    source: str | None = None
    log1p: bool = False
    clip: tuple[float, float] | None = None
    quantiles: int | None = None
    meaning: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None:
            object.__setattr__(self, "clip", tuple(self.clip))  # JSON has lists only
            if not -float("inf") < self.clip[0] < self.clip[1] < float("inf"):
                raise ValueError(f"clip: expected two numbers, the lower one first, found {list(self.clip)}")
        if self.quantiles is not None and not 2 <= self.quantiles <= MOST_QUANTILES:
            raise ValueError(f"quantiles: expected 2 to {MOST_QUANTILES} parts, found {self.quantiles}")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def use(self) -> tuple[object, ...]:
        """What decides what a model makes of it: where this is the same, so is what was learnt."""
        return self.name, self.log1p, self.clip, self.quantiles


class Statistics(TypedDict):
    """Of a number's bent values z in some samples; a user's value counts once for each impression.

    values, missing: impressions with a value, and without one. mean, std, min, max: 0 where there is no
    value. bounds: what divides z into `Number.quantiles` parts, one less than these; [] without them.
    """

    values: int
    missing: int
    mean: float
    std: float
    min: float
    max: float
    bounds: list[float]
