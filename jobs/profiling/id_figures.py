"""What a profile says of a field's ids: how many, how full the buckets, what collides, how many to have."""

from typing import NamedTuple

from pyspark.sql import Row

from cli.errors import InputError
from jobs.profiling import estimators as figures
from jobs.profiling.config import ProfileConfig
from schemas import ids
from schemas.ids import FieldReport, IdManifest, Mode
from schemas.manifest import Manifest
from schemas.profile import Measured


class IdFigures(NamedTuple):
    """See `schemas.profile.MEANING`."""

    mode: Mode
    used_buckets: int
    fill: float
    distinct_ids: float | None
    distinct_ids_error: float | None
    collision_rate: float | None
    proposed_buckets: int


def id_table_path(content: Manifest, given: str | None) -> str | None:
    """Where the id table is: the folder given, else the one that the samples name, if any."""
    return given or (content["id_table"]["path"] if "id_table" in content else None)


def read_id_table(samples: str, content: Manifest, given: str | None) -> IdManifest | None:
    """The id table of some samples; an `InputError` where the one given or named is not theirs."""
    path = id_table_path(content, given)
    named = content.get("id_table")
    if path is None:
        return None
    try:
        table = ids.read(path)
    except InputError as error:
        where = "" if given else f" {samples} names it: pass --ids where it was moved."
        raise InputError(f"{error}{where}") from error
    expected = named["digest"] if named else "none"
    found = table["digest"] if named or ids.settings_of(table).table_fields() else "none"
    if expected != found or content["hash_seed"] != table["hash_seed"]:
        raise InputError(
            f"{path}: not the id table of {samples}, which has hash_seed {content['hash_seed']} and id table "
            f"{expected}; found hash_seed {table['hash_seed']} and id table {found}. Give the one that they "
            "were built with, or a report of the same logs."
        )
    if missing := [name for name in content["buckets"] if name not in table["fields"]]:
        raise InputError(
            f"{path}: made for another schema than {samples}: it says nothing of field {', '.join(missing)}. "
            "Give a report of the same logs."
        )
    return table


def id_figures(tokens: Row, buckets: int, report: FieldReport | None, settings: ProfileConfig) -> IdFigures:
    """The figures of one field. tokens: its summary of buckets; report: of the id table, if there is one."""
    mode = report["mode"] if report else "hash"
    reserved = 1 if mode == "hash" else ids.FIRST_KNOWN
    used = tokens["used"] - int(mode != "hash" and tokens["rare"] > 0)
    places = buckets - reserved
    held = report["kept_ids"] if report else figures.fewest_ids(used, places)
    target = settings.target_collision_rate
    least = settings.least_buckets
    if mode == "vocabulary":
        proposed = figures.propose_vocabulary(round(held), least, reserved)
        return IdFigures(mode, used, used / places, used, 0.0, 0.0, proposed)
    estimate = figures.distinct_ids(used, places)
    return IdFigures(
        mode=mode,
        used_buckets=used,
        fill=used / places,
        distinct_ids=estimate,
        distinct_ids_error=None if estimate is None else figures.distinct_ids_error(estimate, places),
        collision_rate=None if estimate is None else figures.collision_rate(estimate, places),
        proposed_buckets=figures.propose_buckets(held, target, least, reserved),
    )


def measured(report: FieldReport, buckets: int) -> Measured:
    """What was counted in the logs; collisions only where they were counted with as many buckets."""
    return Measured(
        ids=report["ids"],
        kept_ids=report["kept_ids"],
        collision_rate=report["collision_rate"] if report["buckets"] == buckets else None,
    )
