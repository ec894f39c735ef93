"""What a report is made from, read and looked at before anything is drawn."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from cli.errors import InputError
from schemas.metrics import Metrics, read_metrics
from schemas.profile import Profile
from schemas.promotion import DECISION_NAME, Decision, read_decision
from schemas.train_log import LOG_NAME
from storage.filesystems import exists, filesystem
from storage.json_files import read_json

METRICS_NAME = "metrics.json"
REPORT_NAME = "report.html"
TEXTS = ("config.yaml", "command.txt", "versions.json")
DEEPEST = 3  # folders below the one that is looked through


@dataclass(frozen=True)
class Run:
    """A run's files. log: entries of train.jsonl, none without it. texts: by name, those that are there.
    decision: of esmm.registry, where it is there."""

    path: str
    metrics: Metrics
    log: list[dict[str, Any]]
    texts: dict[str, str]
    profiles: dict[str, Profile] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    decision: Decision | None = None


def read_run(path: str, profiles: Sequence[str], stages: str | None) -> Run:
    """All that a report shows; an `InputError` where something is broken."""
    return Run(
        path=path,
        metrics=read_metrics(f"{path}/{METRICS_NAME}"),
        log=_read_log(f"{path}/{LOG_NAME}"),
        texts={name: text for name in TEXTS if (text := _text(f"{path}/{name}")) is not None},
        profiles={name: _read_profile(name) for name in profiles},
        stages=_read_stages(stages) if stages is not None else [],
        decision=read_decision(f"{path}/{DECISION_NAME}") if exists(f"{path}/{DECISION_NAME}") else None,
    )


def _read_profile(path: str) -> Profile:
    found = read_json(path)
    if not {"source", "counts", "rates", "fields", "gates"} <= found.keys():
        raise InputError(f"{path}: expected a profile by jobs.profile_samples, found something else.")
    return cast(Profile, found)


def _read_stages(path: str) -> list[dict[str, Any]]:
    text = _text(path)
    if text is None:
        raise InputError(f"{path}: expected this file, a JSON list of stages, found none.")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path}: expected a JSON list of stages, found something else ({error})."
        ) from error
    keys = {"name", "command", "seconds"}
    if not isinstance(found, list) or not all(isinstance(one, dict) and keys <= one.keys() for one in found):
        raise InputError(f"{path}: expected a list of stages with name, command and seconds.")
    return found


def _read_log(path: str) -> list[dict[str, Any]]:
    lines = (_text(path) or "").splitlines()
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise InputError(
            f"{path}: expected a JSON object per line, found something else ({error})."
        ) from error


def _text(path: str) -> str | None:
    fs, target = filesystem(path)
    if not fs.exists(target):
        return None
    with fs.open(target, "rb") as stream:
        return str(stream.read().decode(errors="replace"))


def find_runs(folder: str) -> list[str]:
    """Paths of runs below a folder as seen from it, in the order of their names with numbers as numbers."""
    fs, target = filesystem(folder)
    if not fs.isdir(target):
        raise InputError(f"{folder}: expected a folder of runs, found none.")
    found = fs.find(target, maxdepth=DEEPEST + 1)
    below = [path[len(target.rstrip("/")) + 1 :] for path in found if path.endswith(f"/{METRICS_NAME}")]
    runs = [path.rpartition("/")[0] for path in below]
    if not runs:
        raise InputError(f"{folder}: expected folders with a {METRICS_NAME}, found none. Run jobs.evaluate.")
    return sorted(runs, key=_natural)


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def has_report(folder: str, run: str) -> bool:
    """Whether there is a page to link to."""
    return exists("/".join(part for part in (folder.rstrip("/"), run, REPORT_NAME) if part))
