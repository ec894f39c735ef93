"""A profile for a person: aligned text of at most 110 columns."""

from typing import Any

from cli.text_table import aligned, with_rule
from schemas.profile import FieldProfile, NumberProfile, Profile, Rates, WeightRange

Line = tuple[str, ...]

LEGEND = (
    "Coverage: of impressions. Lengths: per context (user fields) or impression. Distinct ids: estimated."
)
LENGTH_HEADINGS = ("mean", "P50", "P99", "max")
FIELD_HEADINGS = ("field", "coverage", *LENGTH_HEADINGS, "buckets", "fill", "ids", "+-", "collide", "propose")
WEIGHT_HEADINGS: Line = ("field", "min weight", "mean", "max")
NUMBER_HEADINGS: Line = ("number", "coverage", "mean", "std", "min", "max", "shift")
MEASURED_HEADINGS: Line = ("field", "mode", "ids", "kept", "collide", "rare tokens here")
DRIFT_HEADINGS: Line = ("field", "PSI", "unseen buckets", "unseen tokens")


def format_profile(profile: Profile) -> str:
    """The whole profile."""
    fields = profile["fields"]
    weights = {name: field.get("weights") for name, field in fields.items()}
    parts = [
        *_head(profile),
        "",
        LEGEND,
        *_table([FIELD_HEADINGS, *(_field_line(name, field) for name, field in fields.items())]),
        _sum_of_buckets(fields),
        "",
        *_table([WEIGHT_HEADINGS, *(_weight_line(name, held) for name, held in weights.items() if held)]),
    ]
    if profile["source"]["ids"]:
        parts += ["", *_measured_table(profile)]
    if "numbers" in profile:
        parts += ["", *_numbers_table(profile["numbers"])]
    if "against" in profile:
        parts += ["", *_drift_table(profile)]
    return "\n".join([*parts, "", *_gate_lines(profile)])


def _head(profile: Profile) -> list[str]:
    counts = profile["counts"]
    quarantine = profile["quarantine"]
    sizes = profile["impressions_per_context"]
    mean, p50, p99 = (_number(value, ",.1f") for value in (sizes["mean"], sizes["p50"], sizes["p99"]))
    labels = f"{counts['clicks']:,} clicks, {counts['conversions']:,} conversions"
    return [
        f"{counts['impressions']:,} impressions, {counts['contexts']:,} contexts, {counts['rows']:,} rows",
        f"{labels}: {_rates(profile['rates'], '.3%')}",
        f"impressions per context: mean {mean}, P50 {p50}, P99 {p99}, max {_number(sizes['max'], ',')}",
        f"duplicate sample ids: {profile['duplicate_sample_ids']:,}",
        f"quarantined lines: {sum(quarantine['lines'].values()):,} ({quarantine['share']:.4%})",
        *(f"  {reason}: {number:,}" for reason, number in quarantine["lines"].items()),
    ]


def _field_line(name: str, field: FieldProfile) -> Line:
    ids = field["distinct_ids"]
    lengths = field.get("lengths")
    per_owner: Line = ("", "", "", "")
    if lengths is not None:
        middle = (_number(lengths[key], ",.0f") for key in ("p50", "p99"))
        per_owner = (_number(lengths["mean"], ",.1f"), *middle, _number(lengths["max"], ","))
    return (
        name,
        _number(field["coverage"], ".1%"),
        *per_owner,
        f"{field['buckets']:,}",
        f"{field['fill']:.1%}",
        "saturated" if ids is None else f"{ids:,.0f}",
        _number(field["distinct_ids_error"], ".1%"),
        _number(field["collision_rate"], ".1%"),
        f"{'>= ' if ids is None else ''}{field['proposed_buckets']:,}",
    )


def _sum_of_buckets(fields: dict[str, FieldProfile]) -> str:
    buckets = sum(field["buckets"] for field in fields.values())
    proposed = sum(field["proposed_buckets"] for field in fields.values())
    return f"all fields: {buckets:,} buckets, {proposed:,} proposed"


def _weight_line(name: str, weights: WeightRange) -> Line:
    return (name, *(f"{value:.5g}" for value in (weights["min"], weights["mean"], weights["max"])))


def _numbers_table(numbers: dict[str, NumberProfile]) -> list[str]:
    lines = [NUMBER_HEADINGS]
    for name, one in numbers.items():
        spread = (f"{value:.5g}" for value in (one["mean"], one["std"], one["min"], one["max"]))
        lines.append((name, _number(one["coverage"], ".1%"), *spread, _number(one.get("shift"), "+.3f")))
    return _table(lines)


def _measured_table(profile: Profile) -> list[str]:
    lines = [MEASURED_HEADINGS]
    for name, field in profile["fields"].items():
        counted = field["measured"]
        lines.append(
            (
                name,
                field["mode"],
                f"{counted['ids']:,}",
                f"{counted['kept_ids']:,}",
                _number(counted["collision_rate"], ".1%"),
                _number(field.get("rare_tokens"), ".2%"),
            )
        )
    return [f"in the logs of {profile['source']['ids']}, exact:", *_table(lines)]


def _drift_table(profile: Profile) -> list[str]:
    against = profile["against"]
    lines = [DRIFT_HEADINGS]
    for name, field in profile["fields"].items():
        drift = field["drift"]
        unseen = (_number(drift[key], ".2%") for key in ("unseen_buckets", "unseen_tokens"))
        lines.append((name, _number(drift["psi"], ".4f"), *unseen))
    return [
        f"against {profile['source']['against']}",
        f"its rates: {_rates(against['rates'], '.3%')}",
        f"differences: {_rates(against['rate_differences'], '+.3%')}",
        *_table(lines),
    ]


def _gate_lines(profile: Profile) -> list[str]:
    report = profile["gates"]
    lines = [f"gates: {report['judged'] - len(report['broken'])} of {report['judged']} kept"]
    if report["skipped"]:
        lines.append(f"gates not judged without --against: {', '.join(report['skipped'])}")
    return lines


def _rates(rates: Rates, form: str) -> str:
    values: dict[str, Any] = dict(rates)
    return ", ".join(f"{name.upper()} {_number(value, form)}" for name, value in values.items())


def _table(lines: list[Line]) -> list[str]:
    return with_rule(aligned(lines))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
