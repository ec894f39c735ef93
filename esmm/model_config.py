"""What a network and its losses are told: the sections `model` and `loss` of a configuration."""

from typing import Literal, Self

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


class Section(BaseModel):
    """Each option is followed by its meaning, which `--help-options` and docs/options.md show."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


APART = ("esmm_ns", "base", "aman", "oversampling", "unbias", "division")
DEBIASED = ("escm2_ips", "escm2_dr", "mrdr", "dcmt", "ddpo")
# Models that have an option, where not all have it.
MODELS_WITH = {
    "cvr_towers": ("esmm", "shared_bottom", "mmoe", "ple", *APART, *DEBIASED),
    "conversions": ("esmm", "shared_bottom", "mmoe", "ple", "dbmtl"),
    "experts": ("mmoe", "ple"),
    "levels": ("ple",),
    "negative_rate": ("aman",),
    "positive_times": ("oversampling",),
}


class ModelConfig(Section):
    name: Literal[
        "esmm",
        "esmm_ns",
        "base",
        "aman",
        "oversampling",
        "unbias",
        "division",
        "shared_bottom",
        "mmoe",
        "ple",
        "dbmtl",
        "aitm",
        "escm2_ips",
        "escm2_dr",
        "mrdr",
        "dcmt",
        "ddpo",
        "esm2",
    ] = "esmm"
    """Whose model it is; docs/models.md says what each one does."""

    embedding_dim: PositiveInt = 18
    """Numbers per row of the embedding table."""

    embedding_init: PositiveFloat = 0.05
    """Rows start with numbers drawn evenly from between minus and plus this."""

    towers: list[PositiveInt] = Field([360, 200, 80], min_length=1)
    """Widths of the hidden layers of each tower, from the embedding to the output."""

    cvr_towers: list[PositiveInt] | None = Field(None, min_length=1)
    """Widths of the CVR tower, where they are to be others than those of the other towers. null: the same."""

    input_norm: bool = False
    """Layer normalisation of all that is pooled of an impression, before the first layer."""

    cross_layers: NonNegativeInt = 0
    """Cross layers of DCN-V2 between an impression's input and the first layer."""

    dots: bool = False
    """Dot products of all pairs of an impression's pooled fields, for the first layer to read beside them."""

    wide: bool = False
    """First-order part: a row holds one number more for each tower, summed over fields into its logit."""

    batch_norm: bool = False
    """Batch normalisation between each hidden layer and its ReLU, over the impressions of all workers."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of each hidden layer's outputs that a training step leaves out."""

    conversions: Literal["entire_space", "clicks"] | None = None
    """What pCVR is learnt from, of esmm, shared_bottom, mmoe, ple, dbmtl. null: entire_space, as in ESMM."""

    experts: PositiveInt | None = None
    """Experts of mmoe, or of each task and of the shared group of ple. null: 4 and 2."""

    levels: PositiveInt | None = None
    """Levels of experts of ple. null: 1."""

    negative_rate: float | None = Field(None, gt=0, le=1)
    """How much an unclicked impression counts as a negative of aman. null: 0.2."""

    positive_times: float | None = Field(None, ge=1)
    """How often a converted click counts in oversampling. null: 5."""

    @model_validator(mode="after")
    def _options_of_this_model(self) -> Self:
        for option, models in MODELS_WITH.items():
            if getattr(self, option) is not None and self.name not in models:
                raise ValueError(
                    f"{option} is an option of {', '.join(models)}, found it with name {self.name}; "
                    "take it out, or choose another name"
                )
        if self.cvr_towers and self.batch_norm:
            raise ValueError(
                "cvr_towers and batch_norm are both given, which norms the layers of all towers together; "
                "expected one of the two"
            )
        return self


class TaskWeights(Section):
    ctr: NonNegativeFloat = 1.0
    """Weight of the loss of clicks in the sum of both losses."""

    ctcvr: NonNegativeFloat = 1.0
    """Weight of the loss of conversions in the sum; one of the two has to be above 0."""

    cvr: NonNegativeFloat | None = None
    """Weight of a loss of pCVR alone, which some models have. null: the model's own."""

    ctavr: NonNegativeFloat | None = None
    """Weight of the loss of clicks with an action, of esm2. null: the model's own."""

    auxiliary: NonNegativeFloat | None = None
    """Weight of what else a model learns by; docs/models.md. null: the model's own."""

    @model_validator(mode="after")
    def _not_both_zero(self) -> Self:
        if self.ctr + self.ctcvr == 0:
            raise ValueError("ctr and ctcvr are both 0, which leaves nothing to learn; expected one above 0")
        return self


class ClassWeights(Section):
    click: PositiveFloat = 1.0
    """Weight of clicked impressions in the loss of clicks; the others weigh 1."""

    conversion: PositiveFloat = 1.0
    """Weight of converted impressions in the loss of conversions; the others weigh 1."""


class LossConfig(Section):
    task_weights: TaskWeights = TaskWeights()
    class_weights: ClassWeights = ClassWeights()

    epsilon: float = Field(0.0, ge=0, lt=0.5)
    """Added to the probability in every logarithm, as PaddlePaddle's log_loss adds 1e-4; docs/models.md."""
