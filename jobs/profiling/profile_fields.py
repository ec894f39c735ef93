"""From what Spark counted to the contents of the profile: pure functions."""

from typing import Any, NamedTuple

from pyspark.sql import Row

from cli.errors import InputError
from jobs.profiling import estimators as figures
from jobs.profiling.config import ProfileConfig
from jobs.profiling.id_figures import IdFigures, id_figures, measured
from jobs.profiling.tally import BUCKET, CLICK, CONVERSION, LENGTH, NO_FIELD, REACHED, ROW, SIZE, WEIGHT
from schemas.fields import Field
from schemas.ids import IdManifest
from schemas.manifest import Manifest
from schemas.profile import (
    Against,
    Counts,
    Drift,
    FieldProfile,
    Lengths,
    NumberProfile,
    Quarantine,
    Rates,
    WeightRange,
)
from schemas.schema import Schema

NOTHING = Row(
    ours=0,  # counts of the samples
    against=0,  # counts of the other set
    sum=0,  # ours, times the value
    max=None,
    percentiles=None,
    above_zero=0,  # ours where the value is above 0
    theirs_zero=0,  # of `theirs`, the compared half of the other set, where the value is 0
    used=0,  # values of the samples
    rare=0,  # ours where the value is 1
    ranking_used=0,  # values of the ranking half of the other set
    unseen_used=0,  # values of the samples that the other set has not
    unseen=0,  # ours, of these
    low=None,
    high=None,
    total=None,
)


class Found(NamedTuple):
    """What Spark found: summaries by (kind, field), and by field the bins of both sets."""

    summaries: dict[tuple[int, int], Row]
    bins: dict[int, list[tuple[int, int]]]

    def of(self, kind: int, field: int = NO_FIELD) -> Row:
        """A summary, all zero and null where nothing was counted."""
        return self.summaries.get((kind, field), NOTHING)


def counts_of(content: Manifest) -> Counts:
    """The counts that the manifest names."""
    counts = content["counts"]
    return Counts(
        rows=counts["rows"],
        contexts=counts["contexts"],
        impressions=counts["impressions"],
        clicks=counts["clicks"],
        conversions=counts["conversions"],
    )


def check_counts(folder: str, expected: Counts, found: Found, side: str) -> None:
    """Stop where the files do not hold what their manifest says. side: ours or against."""
    kinds = {"rows": ROW, "contexts": SIZE, "clicks": CLICK, "conversions": CONVERSION}
    counted = {name: found.of(kind)[side] for name, kind in kinds.items()}
    named: dict[str, Any] = dict(expected)
    wrong = [f"{name}: {named[name]} against {n}" for name, n in counted.items() if named[name] != n]
    if wrong:
        raise InputError(
            f"{folder}: its manifest and its files disagree ({'; '.join(wrong)}). Build the samples again."
        )


def rates_of(counts: Counts) -> Rates:
    return Rates(
        ctr=_ratio(counts["clicks"], counts["impressions"]),
        cvr=_ratio(counts["conversions"], counts["clicks"]),
        ctcvr=_ratio(counts["conversions"], counts["impressions"]),
    )


def against_of(ours: Rates, content: Manifest) -> Against:
    counts = counts_of(content)
    theirs = rates_of(counts)
    differences = Rates(
        ctr=_difference(ours["ctr"], theirs["ctr"]),
        cvr=_difference(ours["cvr"], theirs["cvr"]),
        ctcvr=_difference(ours["ctcvr"], theirs["ctcvr"]),
    )
    return Against(counts=counts, rates=theirs, rate_differences=differences)


def quarantine_of(content: Manifest) -> Quarantine:
    lines = content["quarantine"]
    broken = sum(lines.values())
    return Quarantine(lines=lines, share=broken / max(1, broken + content["counts"]["impressions"]))


def lengths_of(row: Row) -> Lengths:
    """Mean, percentiles and maximum of the numbers that a summary is about."""
    p50, p99 = row["percentiles"] or (None, None)
    return Lengths(mean=_ratio(row["sum"], row["ours"]), p50=p50, p99=p99, max=row["max"])


def fields_of(
    found: Found,
    schema: Schema,
    id_table: IdManifest | None,
    settings: ProfileConfig,
    with_drift: bool,
) -> dict[str, FieldProfile]:
    """What is known of every field, in the order of the schema."""
    profiles = {}
    for position, field in enumerate(schema.fields):
        report = id_table["fields"][field.name] if id_table else None
        ids = id_figures(found.of(BUCKET, position), field.buckets, report, settings)
        profile = _field_profile(found, position, field, ids)
        if report:
            profile["measured"] = measured(report, field.buckets)
        if with_drift:
            profile["drift"] = _drift(found, position)
        profiles[field.name] = profile
    return profiles


def _field_profile(found: Found, position: int, field: Field, ids: IdFigures) -> FieldProfile:
    tokens = found.of(BUCKET, position)
    owners = found.of(LENGTH, position)
    reached = owners if field.per_impression else found.of(REACHED, position)
    profile = FieldProfile(
        owner="impressions" if field.per_impression else "contexts",
        coverage=_ratio(reached["above_zero"], reached["ours"]),
        tokens=tokens["ours"],
        buckets=field.buckets,
        mode=ids.mode,
        used_buckets=ids.used_buckets,
        fill=ids.fill,
        distinct_ids=ids.distinct_ids,
        distinct_ids_error=ids.distinct_ids_error,
        collision_rate=ids.collision_rate,
        proposed_buckets=ids.proposed_buckets,
    )
    if ids.mode != "hash":
        profile["rare_tokens"] = _ratio(tokens["rare"], tokens["ours"])
    if not field.per_impression:
        profile["coverage_contexts"] = _ratio(owners["above_zero"], owners["ours"])
    if field.multi:
        profile["lengths"] = lengths_of(owners)
    if field.weighted:
        profile["weights"] = _weights(found.of(WEIGHT, position))
    return profile


def _weights(row: Row) -> WeightRange | None:
    if not row["ours"]:
        return None
    # Twelve digits do not depend on the order in which Spark adds the tasks' sums.
    return WeightRange(min=row["low"], mean=float(f"{row['total'] / row['ours']:.12g}"), max=row["high"])


def _drift(found: Found, position: int) -> Drift:
    tokens = found.of(BUCKET, position)
    owners = found.of(LENGTH, position)
    missing = (owners["ours"] - owners["above_zero"], owners["theirs_zero"])
    bins = [*found.bins.get(position, []), missing]
    # Without a rank all ids fall into one bin, where the most different ones would look alike.
    unranked = tokens["against"] > 0 and tokens["ranking_used"] == 0
    return Drift(
        psi=None if unranked else figures.stability_index([a for a, _ in bins], [b for _, b in bins]),
        unseen_buckets=_ratio(tokens["unseen_used"], tokens["used"]),
        unseen_tokens=_ratio(tokens["unseen"], tokens["ours"]),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _difference(one: float | None, two: float | None) -> float | None:
    return None if one is None or two is None else one - two


def numbers_of(ours: Manifest, theirs: Manifest | None) -> dict[str, NumberProfile]:
    """Numeric fields, as the jobs that built the samples have tallied them."""
    found = {}
    for name, one in ours.get("numbers", {}).items():
        impressions = one["values"] + one["missing"]
        found[name] = NumberProfile(
            coverage=one["values"] / impressions if impressions else None,
            mean=one["mean"],
            std=one["std"],
            min=one["min"],
            max=one["max"],
        )
        if theirs is not None:
            other = theirs["numbers"][name]
            found[name]["shift"] = (one["mean"] - other["mean"]) / other["std"] if other["std"] else None
    return found
