"""The `samples` section of a configuration: how raw logs become samples."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cli.config_files import load_section
from jobs.field_options import KnownFields, NamesFields
from schemas import ids
from schemas.fields import MOST_BUCKETS
from schemas.schema import Schema

SLOTS = 1_000_000  # the finest share of contexts that can be kept for validation is one in so many


class SamplesConfig(BaseModel):
    """Everything that decides what the samples look like, and when the job refuses to make them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    hash_seed: int = Field(0, ge=0, lt=1 << 63)
    """Seed of the hash that gives ids their buckets; samples of two seeds do not go together."""

    max_broken_share: float = Field(0.01, ge=0, le=1)
    """Share of the lines that may be broken; more stop the job before anything is published."""

    valid_share: float = Field(0.0, ge=0, lt=1)
    """Share of the contexts that a build with --valid-out puts there and not into the samples."""

    rows_per_row_group: int = Field(1024, ge=1)
    """Rows of a row group: few shard evenly over many workers, many compress better and read faster."""

    impressions_per_row: int = Field(256, ge=1)
    """Impressions of a row at most; a context with more is split over several rows."""

    raw_bytes_per_task: int = Field(128 << 20, ge=1 << 10)
    """Bytes of raw log that one task parses at most."""

    raw_bytes_per_file: int = Field(128 << 20, ge=1 << 10)
    """Bytes of raw log that go into one Parquet file, on average."""

    buckets: Annotated[dict[str, int], NamesFields, KnownFields] = Field(default_factory=dict)
    """By field: buckets of its hash range, 2 to 2^31 - 1; others keep those of the schema."""

    min_count: Annotated[dict[str, Annotated[int, Field(ge=2)]], NamesFields, KnownFields] = Field(
        default_factory=dict
    )
    """By field: ids rarer than this in the training logs share one bucket. Needs an id table: docs/ids.md."""

    vocabulary: Annotated[tuple[str, ...], NamesFields, KnownFields] = ()
    """Fields whose known ids get a bucket each, without collisions. Needs an id table: docs/ids.md."""

    @field_validator("valid_share")
    @classmethod
    def _contexts_on_both_sides(cls, share: float) -> float:
        if share and not 0 < round(share * SLOTS) < SLOTS:
            raise ValueError(f"a share is 0 or one from {1 / SLOTS} to {1 - 1 / SLOTS}, found {share}")
        return share

    @field_validator("buckets")
    @classmethod
    def _possible_sizes(cls, buckets: dict[str, int]) -> dict[str, int]:
        wrong = {name: size for name, size in buckets.items() if not 2 <= size <= MOST_BUCKETS}
        if wrong:
            raise ValueError(f"a field needs 2 to 2^31 - 1 buckets, found {wrong}")
        return buckets

    @model_validator(mode="after")
    def _room_for_known_ids(self, info: ValidationInfo) -> Self:
        if info.context is None:
            return self
        settings = self.id_settings(info.context)
        full = [name for name in settings.table_fields() if settings.buckets[name] <= ids.FIRST_KNOWN]
        if full:
            raise ValueError(
                f"a field with min_count or vocabulary needs 3 buckets, found 2: {', '.join(full)}"
            )
        return self

    def sized(self, schema: Schema) -> Schema:
        """The schema with the hash ranges that this configuration gives its fields."""
        return schema.with_buckets(self.buckets)

    def id_settings(self, schema: Schema) -> ids.IdSettings:
        """What decides the bucket of an id."""
        buckets = self.sized(schema).buckets
        keys: ids.Keys = "hash" if schema.tables else "raw"
        return ids.IdSettings(self.hash_seed, buckets, dict(self.min_count), self.vocabulary, keys)


def load_samples_config(path: str | None, schema: Schema) -> SamplesConfig:
    """The section `samples` of a YAML file, or the defaults without a file, for logs of this schema."""
    return load_section(path, "samples", SamplesConfig, schema)
