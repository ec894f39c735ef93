"""What demo logs depend on; equal options give equal bytes."""

from dataclasses import dataclass

from cli.errors import InputError
from jobs.demo_logs.world import MAX_CONTEXTS

ADDITIVE, LATENT = "additive", "latent"
MAX_DAY = 1000  # a day replays the changes of those before it


@dataclass(frozen=True)
class LogOptions:
    """Of any world."""

    contexts: int = 8000  # common records of the training half; the test half has half as many
    seed: int = 1
    ctr: float = 0.04  # clicks per impression
    cvr: float = 0.15  # conversions per click
    list_scale: float = 1.0  # scales the lengths of the histories

    def check(self) -> None:
        """Raise one `InputError` that names every option out of its range."""
        if wrong := self._wrong():
            raise InputError("; ".join(wrong) + ". See --help.")

    def _wrong(self) -> list[str]:
        wrong = []
        if not 2 <= self.contexts <= MAX_CONTEXTS:
            wrong.append(f"--contexts: expected 2 to {MAX_CONTEXTS}, found {self.contexts}")
        if self.seed < 0:
            wrong.append(f"--seed: expected a whole number >= 0, found {self.seed}")
        for name, rate in (("--ctr", self.ctr), ("--cvr", self.cvr)):
            if not 0.0 < rate < 1.0:
                wrong.append(f"{name}: expected a share between 0 and 1 (0.04 is 4 %), found {rate}")
        if not 0.0 <= self.list_scale <= 4.0:
            wrong.append(f"--list-scale: expected 0 to 4, found {self.list_scale}")
        return wrong


@dataclass(frozen=True)
class Options(LogOptions):
    """Of the worlds of Ali-CCP's fields."""

    world: str = ADDITIVE


@dataclass(frozen=True)
class DayOptions(LogOptions):
    """Of one day of the additive world, whole: contexts are those of the day."""

    contexts: int = 4000
    day: int = 1

    def _wrong(self) -> list[str]:
        wrong = super()._wrong()
        if not 1 <= self.day <= MAX_DAY:
            wrong.append(f"--day: expected 1 to {MAX_DAY}, found {self.day}")
        return wrong


@dataclass(frozen=True)
class ShopOptions(LogOptions):
    """Of the shop. actions: whether its impressions tell what led to a conversion."""

    actions: bool = False
