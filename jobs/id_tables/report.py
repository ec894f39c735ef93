"""What an id table says of itself: checks, figures of every field, its manifest, its text. Pure functions.

by_field: the rows of `frames.sizes` by the place of their field in the schema; below 0 those of the lines.
"""

from collections.abc import Iterator

from pyspark.sql import Row

from cli.errors import InputError
from cli.text_table import aligned
from cli.version import WRITTEN_BY
from jobs.id_tables import frames
from jobs.id_tables.token_counter import BROKEN_LINES, GOOD_LINES
from jobs.raw_logs.files import LogFile
from schemas import ids
from schemas.hashing import HASH_NAME
from schemas.schema import Schema

HEADINGS = ("field", "mode", "tokens", "ids", "kept", "of tokens", "buckets", "fill", "collide", "expected")


def check(by_field: dict[int, Row], settings: ids.IdSettings, max_broken_share: float) -> None:
    """Stop where too many lines are broken, none is good, or a vocabulary has more ids than buckets."""
    good, broken = lines(by_field)
    if not good or broken / (good + broken) > max_broken_share:
        raise InputError(
            f"nothing was published: {broken} of {good + broken} lines are broken, allowed is a share of "
            f"{max_broken_share:.2%}. jobs.build_samples on the same logs names each line and its "
            "reason. Mend the logs, or raise samples.max_broken_share."
        )
    if full := list(too_large_vocabularies(by_field, settings)):
        raise InputError(
            f"nothing was published: vocabularies with more ids than buckets: {'; '.join(full)}. Two buckets "
            "are those of missing and of rare ids. Raise samples.buckets, or keep fewer by samples.min_count."
        )


def too_large_vocabularies(by_field: dict[int, Row], settings: ids.IdSettings) -> Iterator[str]:
    """Field, ids and buckets of every vocabulary that does not fit."""
    for index, (name, buckets) in enumerate(settings.buckets.items()):
        if settings.mode(name) == "vocabulary" and index in by_field:
            known = by_field[index]["kept_ids"]
            least = known + ids.FIRST_KNOWN
            if buckets < least:
                yield f"field {name} has {known} ids and {buckets} buckets, expected at least {least}"


def lines(by_field: dict[int, Row]) -> tuple[int, int]:
    """Good and broken lines of the logs."""
    good, broken = (by_field.get(key) for key in (GOOD_LINES, BROKEN_LINES))
    return good["tokens"] if good else 0, broken["tokens"] if broken else 0


def num_known(by_field: dict[int, Row], settings: ids.IdSettings) -> int:
    """The ids in the table: those kept of the fields that have one."""
    with_table = (i for i, name in enumerate(settings.buckets) if settings.mode(name) != "hash")
    return sum(by_field[i]["kept_ids"] for i in with_table if i in by_field)


def field_reports(
    by_field: dict[int, Row], collisions: dict[int, Row], settings: ids.IdSettings
) -> dict[str, ids.FieldReport]:
    """The figures of every field. collisions: the rows of `frames.collisions` by field."""
    return {
        name: field_report(name, settings, by_field.get(i), collisions.get(i))
        for i, name in enumerate(settings.buckets)
    }


def field_report(
    name: str, settings: ids.IdSettings, size: Row | None, placed: Row | None
) -> ids.FieldReport:
    """The figures of a field; size, placed: its rows of `frames.sizes` and `collisions`, if it has ids."""
    figures = size.asDict() if size else {}
    used, shared = (placed["used"], placed["shared"]) if placed else (0, 0)
    mode = settings.mode(name)
    kept = figures.get("kept_ids", 0)
    free = settings.buckets[name] - (1 if mode == "hash" else ids.FIRST_KNOWN)
    return ids.FieldReport(
        mode=mode,
        tokens=figures.get("tokens", 0),
        ids=figures.get("ids", 0),
        kept_tokens=figures.get("kept_tokens", 0),
        kept_ids=kept,
        buckets=settings.buckets[name],
        used_buckets=used,
        bucket_fill=used / free,
        collision_rate=shared / kept if kept else 0.0,
        expected_collision_rate=0.0 if mode == "vocabulary" else ids.expected_collision_rate(kept, free),
        seen_at_least={
            str(n): {what: figures.get(f"seen_{n}_{what}", 0) for what in ("ids", "tokens")}
            for n in frames.SEEN_AT_LEAST
        },
    )


def manifest_of(
    files: list[LogFile],
    schema: Schema,
    settings: ids.IdSettings,
    digest: str,
    num_lines: tuple[int, int],
    reports: dict[str, ids.FieldReport],
) -> ids.IdManifest:
    """What `_ids.json` holds. schema: with the buckets of the settings; num_lines: good and broken ones."""
    made = ids.IdManifest(
        version=ids.VERSION,
        digest=digest,
        hash=HASH_NAME,
        hash_seed=settings.hash_seed,
        buckets=settings.buckets,
        min_count=settings.min_count,
        vocabulary=list(settings.vocabulary),
        lines=num_lines[0],
        broken_lines=num_lines[1],
        source={"files": [f.path for f in files], "bytes": sum(f.size for f in files)},
        fields=reports,
        schema=schema.to_dict(),
        written_by=WRITTEN_BY,
    )
    if settings.keys != "raw":
        made["keys"] = settings.keys
    return made


def summary(made: ids.IdManifest, out: str, seconds: float) -> str:
    """The report for a person; `collide`: the share of kept ids that share their bucket with another one."""
    table = aligned([HEADINGS, *(_line(name, field) for name, field in made["fields"].items())], left=0)
    size = f"{made['lines']:,} lines, {made['broken_lines']:,} broken ones left out, {seconds:.1f} s"
    return "\n".join([*table, f"{out}: id table {made['digest']} of {size}"])


def _line(name: str, field: ids.FieldReport) -> tuple[str, ...]:
    return (
        name,
        field["mode"],
        f"{field['tokens']:,}",
        f"{field['ids']:,}",
        f"{field['kept_ids']:,}",
        f"{field['kept_tokens'] / max(1, field['tokens']):.1%}",
        f"{field['buckets']:,}",
        f"{field['bucket_fill']:.1%}",
        f"{field['collision_rate']:.2%}",
        f"{field['expected_collision_rate']:.2%}",
    )
