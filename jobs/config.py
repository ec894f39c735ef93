"""The `samples` section of a configuration: how raw logs become samples."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas import config
from schemas.errors import InputError
from schemas.fields import FIELD_INDEX, FIELDS


class SamplesConfig(BaseModel):
    """Everything that decides what the samples look like, and when the job refuses to make them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash_seed: int = Field(0, ge=0, lt=1 << 63)
    # A larger share of quarantined lines stops the job before anything is published.
    max_broken_share: float = Field(0.01, ge=0, le=1)
    # Share of the contexts that a build with --valid-out puts there and not into the samples.
    valid_share: float = Field(0.0, ge=0, lt=1)
    # Small row groups shard evenly over many workers, large ones compress better.
    rows_per_row_group: int = Field(1024, ge=1)
    # A context with more impressions is split over several rows.
    impressions_per_row: int = Field(256, ge=1)
    # Raw bytes that one task parses.
    raw_bytes_per_task: int = Field(128 << 20, ge=1 << 10)
    # Raw bytes that go into one Parquet file.
    raw_bytes_per_file: int = Field(128 << 20, ge=1 << 10)
    # Sizes of hash ranges by field; fields not named keep the default of schemas.fields.
    buckets: dict[str, int] = Field(default_factory=dict)

    @field_validator("buckets")
    @classmethod
    def _known_fields(cls, buckets: dict[str, int]) -> dict[str, int]:
        unknown = [name for name in buckets if name not in FIELD_INDEX]
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)}; known: {', '.join(FIELD_INDEX)}")
        wrong = {name: size for name, size in buckets.items() if not 2 <= size < 1 << 31}
        if wrong:
            raise ValueError(f"a field needs 2 to 2^31 - 1 buckets, found {wrong}")
        return buckets

    def all_buckets(self) -> dict[str, int]:
        """The size of every field's hash range, in the order of FIELDS."""
        return {field.name: self.buckets.get(field.name, field.buckets) for field in FIELDS}


def load_samples_config(path: str | None) -> SamplesConfig:
    """The section `samples` of a YAML file, or the defaults without a file."""
    section: Any = config.read_yaml(path).get("samples") if path else None
    if section is not None and not isinstance(section, dict):
        raise InputError(f"{path}: section samples: expected options, found {type(section).__name__}.")
    return config.validate(SamplesConfig, section or {}, f"{path or 'defaults'}, section samples")
