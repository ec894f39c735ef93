"""The configuration of a training run: its sections of the YAML file, see `RUN_SECTIONS`.

The section `samples` of the same file belongs to `jobs.build_samples` and is ignored here.
"""

from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cli.config_files import read_yaml, validate
from cli.errors import InputError

RUN_SECTIONS = ("loader", "model", "loss", "optimizer", "train", "tracking")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LoaderConfig(_Section):
    shuffle_window: NonNegativeInt = 2048  # contexts shuffled together; 0 keeps the order of the files
    skip_broken_row_groups: bool = False  # train and validate without those that are damaged; else stop
    max_broken_share: float = Field(0.01, ge=0, le=1)  # of the impressions that may be left out so; else stop


class ModelConfig(_Section):
    embedding_dim: PositiveInt = 18  # numbers per row of the embedding table
    embedding_init: PositiveFloat = 0.05  # rows start uniform in +- this
    towers: list[PositiveInt] = Field([360, 200, 80], min_length=1)  # hidden layers of each tower
    batch_norm: bool = False  # between each hidden layer and its ReLU, over the impressions of all workers
    dropout: float = Field(0.0, ge=0, lt=1)  # share of each hidden layer's outputs that a step leaves out


class TaskWeights(_Section):
    ctr: NonNegativeFloat = 1.0  # of the loss of clicks
    ctcvr: NonNegativeFloat = 1.0  # of the loss of conversions

    @model_validator(mode="after")
    def _not_both_zero(self) -> Self:
        if self.ctr + self.ctcvr == 0:
            raise ValueError("ctr and ctcvr are both 0, which leaves nothing to learn; expected one above 0")
        return self


class ClassWeights(_Section):
    click: PositiveFloat = 1.0  # of clicked impressions in the loss of clicks; the others weigh 1
    conversion: PositiveFloat = 1.0  # of converted impressions in the loss of conversions; the others weigh 1


class LossConfig(_Section):
    task_weights: TaskWeights = TaskWeights()
    class_weights: ClassWeights = ClassWeights()


class ScheduleConfig(_Section):
    warmup_steps: NonNegativeInt = 0  # steps over which both learning rates rise to their full values
    decay: Literal["none", "linear", "cosine"] = "none"  # their way down from there over the other steps
    final_factor: float = Field(0.0, ge=0, le=1)  # what a decay has left of them after the last step


class _DecayingConfig(_Section):
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0  # each step multiplies every number by 1 - learning_rate * this

    @model_validator(mode="after")
    def _decay_keeps_the_sign(self) -> Self:
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError("learning_rate * weight_decay is 1 or more, which leaves nothing after one step")
        return self


class DenseOptimizerConfig(_DecayingConfig):
    name: Literal["adam"] = "adam"  # for the towers
    learning_rate: PositiveFloat = 0.001


class SparseOptimizerConfig(_DecayingConfig):
    name: Literal["rowwise_adagrad", "lazy_adam", "sgd"] = "rowwise_adagrad"  # for the embedding's rows
    learning_rate: PositiveFloat = 0.05
    eps: PositiveFloat | None = None  # of Adagrad's and Adam's divisor; null: 1e-8 / train.batch_size
    l2: NonNegativeFloat = 0.0  # adds l2 / 2 * |v|^2 of each distinct row of a step to the step's loss


class OptimizerConfig(_Section):
    schedule: ScheduleConfig = ScheduleConfig()
    clip_grad_norm: PositiveFloat | None = None  # longest gradient, of towers and rows together; null: any
    dense: DenseOptimizerConfig = DenseOptimizerConfig()
    sparse: SparseOptimizerConfig = SparseOptimizerConfig()


class TrainConfig(_Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: GPUs where each worker has its own, else the CPU
    batch_size: PositiveInt = 1024  # impressions per step, over all workers
    epochs: PositiveInt = 1  # passes over the training samples
    seed: int = Field(42, ge=0, lt=2**31)  # of initial values and shuffling
    log_every: PositiveInt = 100  # steps between two log lines
    checkpoint_steps: NonNegativeInt = 0  # a checkpoint every so many steps; 0: at each epoch's end only
    checkpoint_minutes: NonNegativeFloat = 0.0  # and whenever so much time has passed; 0: never for that
    keep_checkpoints: PositiveInt = 3  # the newest ones stay, older ones are removed
    validate_steps: NonNegativeInt = 0  # a validation every so many steps; 0: at each epoch's end only
    early_stopping_patience: NonNegativeInt = 0  # validations without a better CTCVR AUC; 0: train to the end
    deterministic: bool = False  # torch refuses operations that may differ from run to run
    precision: Literal["fp32", "bf16"] = "fp32"  # of the towers' matrix products; all else is fp32


class MlflowConfig(_Section):
    uri: str | None = None  # where MLflow keeps runs; null: an SQLite file, mlflow.db, in the run folder
    experiment: str = Field("esmm", min_length=1)  # the name that the run is listed under


class TrackingConfig(_Section):
    mlflow: MlflowConfig | None = None  # null: off; {}: on
    tensorboard: bool = False  # event files in the run folder, under tensorboard/


class Config(_Section):
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
