"""The configuration of a training run: its sections of the YAML file, see `RUN_SECTIONS`.

The section `samples` of the same file belongs to `jobs.build_samples` and is ignored here.
"""

from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cli.config_files import read_yaml, validate
from cli.errors import InputError
from esmm.model_config import LossConfig, ModelConfig, Section


class LoaderConfig(Section):
    shuffle_window: NonNegativeInt = 2048
    """Contexts that are shuffled together, and held in memory for it; 0 keeps the order of the files."""

    skip_broken_row_groups: bool = False
    """Train and validate without the row groups that are damaged; false: the first one stops the run."""

    max_broken_share: float = Field(0.01, ge=0, le=1)
    """Share of the impressions that may be left out with broken row groups; more stop the run."""


class ScheduleConfig(Section):
    warmup_steps: NonNegativeInt = 0
    """Steps over which both learning rates rise to their full values."""

    decay: Literal["none", "linear", "cosine"] = "none"
    """How both learning rates fall over the steps after the warm-up."""

    hold: float = Field(0.0, ge=0, lt=1)
    """Share of the steps after the warm-up that have the full learning rates, before they fall."""

    final_factor: float = Field(0.0, ge=0, le=1)
    """Share of the learning rates that a decay has left after the last step."""


class _DecayingConfig(Section):
    learning_rate: PositiveFloat

    weight_decay: NonNegativeFloat = 0.0
    """Each step multiplies all numbers by 1 - learning_rate * weight_decay, as AdamW does."""

    @model_validator(mode="after")
    def _decay_keeps_the_sign(self) -> Self:
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError("learning_rate * weight_decay is 1 or more, which leaves nothing after one step")
        return self


class DenseOptimizerConfig(_DecayingConfig):
    learning_rate: PositiveFloat = 0.001
    """Learning rate of the towers' Adam."""

    @model_validator(mode="before")
    @classmethod
    def _without_name(cls, values: Any) -> Any:
        """Runs of before 0.9 name Adam, which has always been the only one."""
        if isinstance(values, dict) and values.get("name") == "adam":
            return {option: value for option, value in values.items() if option != "name"}
        return values


class SparseOptimizerConfig(_DecayingConfig):
    name: Literal["rowwise_adagrad", "lazy_adam", "sgd"] = "rowwise_adagrad"
    """The optimiser of the embedding's rows; per row of d numbers it keeps 1, 2d + 1 or no numbers."""

    learning_rate: PositiveFloat = 0.05
    """Learning rate of the embedding's rows."""

    eps: PositiveFloat | None = None
    """What Adagrad and Adam add to what they divide by; null: 1e-8 / train.batch_size."""

    l2: NonNegativeFloat = 0.0
    """Adds l2 / 2 * |v|^2 of each distinct row v of a step to the step's loss."""


class OptimizerConfig(Section):
    schedule: ScheduleConfig = ScheduleConfig()
    clip_grad_norm: PositiveFloat | None = None
    """Longest gradient of a step, towers and rows together; a longer one is shortened. null: any length."""

    dense: DenseOptimizerConfig = DenseOptimizerConfig()
    sparse: SparseOptimizerConfig = SparseOptimizerConfig()


class TrainConfig(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What the workers compute on. auto: GPUs where each worker has one of its own, else the CPU."""

    batch_size: PositiveInt = 1024
    """Impressions per step, of all workers together."""

    epochs: PositiveInt = 1
    """Passes over the training samples."""

    seed: int = Field(42, ge=0, lt=2**31)
    """Seed of the start values, of dropout and of shuffling."""

    log_every: PositiveInt = 100
    """Steps between two lines of the log."""

    checkpoint_steps: NonNegativeInt = 0
    """A checkpoint every so many steps; 0: at the end of each epoch only."""

    checkpoint_minutes: NonNegativeFloat = 0.0
    """A checkpoint whenever so many minutes have passed since the last; 0: none for that reason."""

    keep_checkpoints: PositiveInt = 3
    """How many of the newest checkpoints stay; older ones are removed."""

    validate_steps: NonNegativeInt = 0
    """A validation every so many steps; 0: at the end of each epoch only."""

    early_stopping_patience: NonNegativeInt = 0
    """Validations without a better CTCVR AUC after which the run ends; 0: it trains to its end."""

    deterministic: bool = False
    """torch replaces or refuses operations whose results may differ from run to run, as some of GPUs do."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the towers' matrix products; all else is computed in fp32."""


class MlflowConfig(Section):
    uri: str | None = None
    """Where MLflow keeps runs, a server or a database; null: an SQLite file, mlflow.db, in the run folder."""

    experiment: str = Field("esmm", min_length=1)
    """The name of the list that MLflow shows the run in."""


class TrackingConfig(Section):
    mlflow: MlflowConfig | None = None
    """Report the run to MLflow. null: off; {}: on, with the defaults of its options."""

    tensorboard: bool = False
    """Write event files for TensorBoard to tensorboard/ of the run folder."""


RUN_SECTIONS: dict[str, type[BaseModel]] = {
    "loader": LoaderConfig,
    "model": ModelConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "tracking": TrackingConfig,
}


class Config(Section):
    """Everything that a training run is told, but for its files."""

    loader: LoaderConfig = LoaderConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose lines are all commented out is null in YAML: its defaults hold."""
        return {key: {} if value is None else value for key, value in values.items()}

    def to_yaml(self) -> str:
        """The configuration with every default written out; `load` reads it back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

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


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their full name, as `--set` writes them."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
