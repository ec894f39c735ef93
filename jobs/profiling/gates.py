"""Judging a profile: which gates it breaks. Pure functions."""

from typing import Any

from cli.errors import InputError
from jobs.field_options import ANY
from jobs.profiling.config import Gates
from schemas.profile import BrokenGate, FieldProfile, GateReport, Profile


def judge(profile: Profile, gates: Gates) -> GateReport:
    """Judge every gate that is set; those that need another set are skipped where there is none."""
    report = GateReport(judged=0, skipped=[], broken=[])
    rates: dict[str, Any] = dict(profile["rates"])
    for rate, found in rates.items():
        limits = getattr(gates, rate)
        if limits is not None:
            _note(report, rate, None, found, list(limits))
    _note(report, "min_impressions", None, profile["counts"]["impressions"], gates.min_impressions)
    duplicates = profile["duplicate_sample_ids"]
    _note(report, "max_duplicate_sample_ids", None, duplicates, gates.max_duplicate_sample_ids)
    if gates.max_quarantine_share is not None:
        share = profile["quarantine"]["share"]
        _note(report, "max_quarantine_share", None, share, gates.max_quarantine_share)
    for gate, keys in BY_FIELD.items():
        _judge_fields(report, gate, getattr(gates, gate), profile["fields"], keys)
    return report


# Per-field gates and where in a field's profile the value they limit stands.
BY_FIELD: dict[str, tuple[str, ...]] = {
    "min_coverage": ("coverage",),
    "max_collision_rate": ("collision_rate",),
    "max_psi": ("drift", "psi"),
    "max_unseen_share": ("drift", "unseen_tokens"),
}


def _judge_fields(
    report: GateReport,
    gate: str,
    limits: dict[str, float],
    profiles: dict[str, FieldProfile],
    keys: tuple[str, ...],
) -> None:
    if limits and any(keys[0] not in profile for profile in profiles.values()):
        report["skipped"].append(gate)
        return
    for name, profile in profiles.items():
        limit = limits.get(name, limits.get(ANY))
        if limit is not None:
            found: Any = profile
            for key in keys:
                found = found[key]
            _note(report, gate, name, found, limit)


def _note(
    report: GateReport, gate: str, field: str | None, found: float | None, allowed: float | list[float]
) -> None:
    """Count a gate as judged, and list it where it is broken; no value breaks every gate."""
    report["judged"] += 1
    if found is None or not _kept(gate, found, allowed):
        report["broken"].append(BrokenGate(gate=gate, field=field, found=found, allowed=allowed))


def _kept(gate: str, found: float, allowed: float | list[float]) -> bool:
    if isinstance(allowed, list):
        return allowed[0] <= found <= allowed[1]
    return found >= allowed if gate.startswith("min_") else found <= allowed


def require_kept(report: GateReport, samples: str, out: str) -> None:
    """An `InputError` that names every broken gate with its field, what was found and what is allowed."""
    if not report["broken"]:
        return
    lines = "\n".join(f"  {describe(gate)}" for gate in report["broken"])
    raise InputError(
        f"{samples}: {len(report['broken'])} of {report['judged']} gates broken, see {out}:\n{lines}\n"
        "Mend the logs or the configuration, or change profile.gates."
    )


def describe(broken: BrokenGate) -> str:
    """One broken gate in words."""
    allowed = broken["allowed"]
    found = broken["found"]
    if isinstance(allowed, list):
        limit = f"{allowed[0]:g} to {allowed[1]:g}"
    else:
        limit = f"at least {allowed:g}" if broken["gate"].startswith("min_") else f"at most {allowed:g}"
    where = f" of field {broken['field']}" if broken["field"] else ""
    value = "no value" if found is None else f"{found:.6g}"
    return f"{broken['gate']}{where}: found {value}, allowed {limit}"
