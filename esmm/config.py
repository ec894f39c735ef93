"""The configuration of a training run: sections loader, model, optimizer and train of the YAML file.

The section `samples` of the same file belongs to `jobs.build_samples` and is ignored here.
"""

from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from schemas.config import read_yaml, validate
from schemas.errors import InputError

RUN_SECTIONS = ("loader", "model", "optimizer", "train")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoaderConfig(_Section):
    shuffle_window: NonNegativeInt = 2048  # contexts shuffled together; 0 keeps the order of the files


class ModelConfig(_Section):
    embedding_dim: PositiveInt = 18  # numbers per row of the embedding table
    embedding_init: PositiveFloat = 0.05  # rows start uniform in +- this
    towers: list[PositiveInt] = Field([360, 200, 80], min_length=1)  # hidden layers of each tower


class DenseOptimizerConfig(_Section):
    name: Literal["adam"] = "adam"  # for the towers
    learning_rate: PositiveFloat = 0.001


class SparseOptimizerConfig(_Section):
    name: Literal["rowwise_adagrad", "lazy_adam"] = "rowwise_adagrad"  # for the rows of the embedding table
    learning_rate: PositiveFloat = 0.05


class OptimizerConfig(_Section):
    dense: DenseOptimizerConfig = DenseOptimizerConfig()
    sparse: SparseOptimizerConfig = SparseOptimizerConfig()


class TrainConfig(_Section):
    batch_size: PositiveInt = 1024  # impressions per step, over all workers
    epochs: PositiveInt = 1  # passes over the training samples
    seed: int = Field(42, ge=0, lt=2**31)  # of initial values and shuffling
    log_every: PositiveInt = 100  # steps between two log lines
    keep_checkpoints: PositiveInt = 3  # the newest ones stay, older ones are removed


class Config(_Section):
    """Everything that decides what a training run computes, but for the samples it reads."""

    loader: LoaderConfig = LoaderConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose lines are all commented out is null in YAML: its defaults hold."""
        return {key: {} if value is None else value for key, value in values.items()}

    def to_yaml(self) -> str:
        """The configuration with every default written out; `load` reads it back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    def batch_size_per_worker(self, workers: int) -> int:
        """Impressions per step of one worker; an `InputError` where the batch cannot be dealt evenly."""
        if self.train.batch_size % workers:
            fitting = max(workers, self.train.batch_size // workers * workers)
            raise InputError(
                f"train.batch_size: expected a multiple of the number of workers ({workers}), "
                f"found {self.train.batch_size}. For example --set train.batch_size={fitting}."
            )
        return self.train.batch_size // workers

    @classmethod
    def load(cls, path: str, settings: list[str]) -> Self:
        """Read a YAML file and apply `a.b=value` settings; all mistakes come in one `InputError`."""
        values = {name: section for name, section in read_yaml(path).items() if name in RUN_SECTIONS}
        unreadable = [message for message in (_apply(values, text) for text in settings) if message]
        if not unreadable:
            return validate(cls, values, path)
        try:
            validate(cls, values, path)
        except InputError as error:
            unreadable.append(str(error))
        raise InputError("\n".join(unreadable))


def _apply(values: dict[str, Any], setting: str) -> str | None:
    """Put one `a.b=value` into the sections, its value read as YAML; return what is wrong with it."""
    option, equals, text = setting.partition("=")
    names = option.strip().split(".")
    if not equals or not all(names):
        return f"--set {setting}: expected section.option=value, for example --set train.epochs=2."
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return f"--set {setting}: expected a YAML value, found {text!r} ({error})."
    section = values
    for name in names[:-1]:
        if not isinstance(section.get(name), dict):
            section[name] = {}
        section = section[name]
    section[names[-1]] = value
    return None
