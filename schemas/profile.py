"""The contract of the JSON file that jobs.profile_samples writes.

A value that does not exist is null, never a stand-in number: the CVR without clicks, the number of ids
where every bucket is used. An owner is a context for user fields and an impression for all others; the
lists of a context that takes several rows count once.
"""

from typing import NotRequired, TypedDict, cast

from cli.errors import InputError
from schemas.ids import Mode
from storage.json_files import read_json


class ProfileSource(TypedDict):
    """The paths as they were given, that of an id table also as the samples name it."""

    samples: str
    against: str | None
    ids: str | None
    fingerprint: str


class Counts(TypedDict):
    rows: int
    contexts: int
    impressions: int
    clicks: int
    conversions: int


class Rates(TypedDict):
    ctr: float | None
    cvr: float | None
    ctcvr: float | None


class Lengths(TypedDict):
    """Of some whole numbers; percentiles interpolate between neighbours. Null where there are none."""

    mean: float | None
    p50: float | None
    p99: float | None
    max: int | None


class WeightRange(TypedDict):
    min: float
    mean: float
    max: float


class Drift(TypedDict):
    """One field of the samples compared with the other set."""

    psi: float | None
    unseen_buckets: float | None
    unseen_tokens: float | None


class Measured(TypedDict):
    """What jobs.build_ids counted in the logs of the id table, next to the estimates from samples."""

    ids: int
    kept_ids: int
    collision_rate: float | None


class FieldProfile(TypedDict):
    owner: str
    mode: Mode
    coverage: float | None
    coverage_contexts: NotRequired[float | None]
    lengths: NotRequired[Lengths]
    weights: NotRequired[WeightRange | None]
    tokens: int
    buckets: int
    used_buckets: int
    fill: float
    distinct_ids: float | None
    distinct_ids_error: float | None
    collision_rate: float | None
    proposed_buckets: int
    rare_tokens: NotRequired[float | None]
    measured: NotRequired[Measured]
    drift: NotRequired[Drift]


class NumberProfile(TypedDict):
    """A numeric field, as training sees it: clipped, and as a logarithm, where the schema says so."""

    coverage: float | None
    mean: float
    std: float
    min: float
    max: float
    shift: NotRequired[float | None]


class Quarantine(TypedDict):
    lines: dict[str, int]
    share: float


class Against(TypedDict):
    """The other set, and how far the samples' rates lie above its."""

    counts: Counts
    rates: Rates
    rate_differences: Rates


class BrokenGate(TypedDict):
    gate: str
    field: str | None
    found: float | None
    allowed: float | list[float]


class GateReport(TypedDict):
    judged: int
    skipped: list[str]
    broken: list[BrokenGate]


class Profile(TypedDict):
    """The file as a whole."""

    source: ProfileSource
    counts: Counts
    rates: Rates
    impressions_per_context: Lengths
    duplicate_sample_ids: int
    quarantine: Quarantine
    fields: dict[str, FieldProfile]
    numbers: NotRequired[dict[str, NumberProfile]]
    against: NotRequired[Against]
    gates: GateReport
    written_by: NotRequired[str]


MEANING: dict[str, str] = {
    "ctr": "clicks / impressions",
    "cvr": "conversions / clicks",
    "ctcvr": "conversions / impressions",
    "duplicate_sample_ids": "impressions beyond the first of their sample_id, over the whole set; exact",
    "quarantine.share": "quarantined lines / (quarantined lines + impressions), as samples.max_broken_share",
    "owner": "what has the field: contexts for user fields, impressions for the others",
    "coverage": "share of impressions that have the field, by their context for user fields",
    "coverage_contexts": "share of contexts that have it; user fields",
    "lengths": "ids per owner, owners without any counting 0; multi-valued fields",
    "weights": "over all tokens; weighted fields, null without tokens",
    "tokens": "ids of all owners together",
    "mode": "how ids become buckets: hash, min_count or vocabulary (schemas/ids.py)",
    "used_buckets": "buckets with at least one token; those of missing and of rare ids never count",
    "fill": "used_buckets / the buckets that an id can fall into",
    "distinct_ids": "linear counting from used_buckets, null where all are used (saturated); of the known "
    "ids where the field has an id table, exact in a vocabulary",
    "distinct_ids_error": "relative standard error of distinct_ids from chance alone",
    "collision_rate": "expected share of ids that share their bucket with another; null where saturated",
    "proposed_buckets": "smallest power of two that keeps collision_rate at profile.target_collision_rate; "
    "where saturated too few: build with it and profile again",
    "rare_tokens": "share of tokens that are rare or unknown to the id table; fields that have one",
    "measured": "distinct ids, those kept and the share of these that share their bucket (null if measured "
    "with another number of buckets), exact, in the logs that the id table was made from",
    "psi": "population stability index of tokens over bins of buckets, and missing; null where one half of "
    "the other set has nothing to rank or to compare; docs/profile.md",
    "unseen_buckets": "share of the used buckets that the other set does not use",
    "unseen_tokens": "share of the tokens in buckets that the other set does not use",
    "rate_differences": "rate of the samples minus that of the other set",
    "numbers": "numeric fields, over impressions, as training sees them",
    "shift": "mean minus that of the other set, in standard deviations of that one; null where it has none",
    "written_by": "name and version of what wrote the file; not in the first releases",
}


def read_profile(path: str) -> Profile:
    """A profile by jobs.profile_samples, or an `InputError`."""
    found = read_json(path)
    if missing := Profile.__required_keys__ - found.keys():
        raise InputError(
            f"{path}: expected a profile by jobs.profile_samples, found no {', '.join(sorted(missing))}. "
            "Profile the samples again."
        )
    return cast(Profile, found)
