"""The `profile` section of a configuration: how bucket sizes are proposed, and the gates."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cli.config_files import load_section
from jobs.field_options import KnownOrAny, NamesFields
from schemas.schema import Schema


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("expected [lowest, highest]")
    return limits


Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
ShareByField = Annotated[dict[str, Share], NamesFields, KnownOrAny]
LimitByField = Annotated[dict[str, Annotated[float, Field(ge=0)]], NamesFields, KnownOrAny]


class Gates(BaseModel):
    """What samples must keep to; a gate that is left out is not judged.

    Per field: a mapping from field to limit; `any` stands for the fields that are not named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ctr: Range | None = None
    """Lowest and highest clicks per impression; null: any."""

    cvr: Range | None = None
    """Lowest and highest conversions per click; null: any."""

    ctcvr: Range | None = None
    """Lowest and highest conversions per impression; null: any."""

    min_impressions: int = Field(1, ge=0)
    """Impressions that there have to be at least."""

    max_duplicate_sample_ids: int = Field(0, ge=0)
    """Impressions beyond the first of their sample_id that there may be."""

    max_quarantine_share: Share | None = None
    """Share of all lines that may be quarantined; null: any."""

    min_coverage: ShareByField = Field(default_factory=dict)
    """By field: share of the impressions that must have it. `any` stands for the fields not named."""

    max_collision_rate: ShareByField = Field(default_factory=dict)
    """By field, or `any`: expected share of ids that share their bucket."""

    max_psi: LimitByField = Field(default_factory=dict)
    """By field, or `any`: population stability index against the other set; judged with --against."""

    max_unseen_share: ShareByField = Field(default_factory=dict)
    """By field, or `any`: share of tokens in buckets that the other set lacks; judged with --against."""


class ProfileConfig(BaseModel):
    """How sizes of hash ranges are proposed, and the gates."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    target_collision_rate: float = Field(0.4, gt=0, lt=1)
    """Expected share of ids that share their bucket, for proposals; 0.4 takes two buckets per id or more."""

    least_buckets: int = Field(4096, ge=2, le=1 << 30)
    """Smallest proposal: fields of few ids cost next to nothing, and each collision there is felt."""

    gates: Gates = Gates()


def load_profile_config(path: str | None, schema: Schema) -> ProfileConfig:
    """The section `profile` of a YAML file, or the defaults without a file, for samples of this schema."""
    return load_section(path, "profile", ProfileConfig, schema)
