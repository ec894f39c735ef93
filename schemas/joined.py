"""Sample sets beside each other, such as days, as one: their files under names that tell the folder."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from cli.errors import InputError
from schemas import manifest
from schemas.manifest import FileEntry, Manifest, SampleSet
from schemas.numbers import Statistics


def read(folders: Sequence[str]) -> SampleSet:
    """Published sample sets as one; a single one as it is.

    `InputError` for folders that hold no samples, that are given twice, whose samples do not fit each other,
    or that have no folder in common.
    """
    places = [folder.rstrip("/") for folder in folders]
    for place, times in Counter(places).items():
        if times > 1:
            raise InputError(f"{place}: given {times} times, expected each folder of samples once.")
    sets = [SampleSet.read(place) for place in places]
    return sets[0] if len(sets) == 1 else _joined(sets)


def _joined(sets: Sequence[SampleSet]) -> SampleSet:
    first = sets[0]
    for other in sets[1:]:
        manifest.require_same(first, other)
    above = common_folder([one.folder for one in sets])
    manifests = [one.manifest for one in sets]
    made = Manifest(**first.manifest)
    files = [_within(above, one.folder, entry) for one in sets for entry in one.manifest["files"]]
    made["files"] = sorted(files, key=lambda entry: entry["name"])  # whatever the order of the folders
    made["counts"] = _sums([one["counts"] for one in manifests])
    made["quarantine"] = _sums([one["quarantine"] for one in manifests])
    made["source"] = {"files": [path for one in manifests for path in _source_files(one)]}
    if any(one.get("cut") != first.manifest.get("cut") for one in manifests):
        made.pop("cut", None)
    if "numbers" in first.manifest:
        made["numbers"] = {
            name: pooled([one["numbers"][name] for one in manifests]) for name in first.manifest["numbers"]
        }
    return SampleSet(above, made)


def common_folder(folders: Sequence[str]) -> str:
    """The lowest folder that all are in."""
    columns = zip(*(folder.split("/")[:-1] for folder in folders), strict=False)
    shared = [column[0] for column in takewhile(lambda parts: len(set(parts)) == 1, columns)]
    relative = not any("://" in folder or folder.startswith("/") for folder in folders)
    if not shared and not relative:
        raise InputError(
            f"{', '.join(folders)}: expected folders of samples below one folder, found none in common. "
            "Give all paths from the same root."
        )
    return "/" if shared == [""] else "/".join(shared) or "."


def _within(above: str, folder: str, entry: FileEntry) -> FileEntry:
    below = folder if above == "." else folder.removeprefix(above).lstrip("/")
    return {**entry, "name": f"{below}/{entry['name']}"}


def _sums(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Per name; those that some do not have count as 0 there."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _source_files(made: Manifest) -> list[str]:
    found = made["source"].get("files", [])
    assert isinstance(found, list)
    return found


def pooled(parts: Sequence[Statistics]) -> Statistics:
    """Of the values of all parts together; the bounds are those of the part with the most values."""
    known = [part for part in parts if part["values"]]
    missing = sum(part["missing"] for part in parts)
    if not known:
        return {**parts[0], "missing": missing}
    values = sum(part["values"] for part in known)
    mean = sum(part["values"] * part["mean"] for part in known) / values
    spread = sum(part["values"] * (part["std"] ** 2 + (part["mean"] - mean) ** 2) for part in known)
    return Statistics(
        values=values,
        missing=missing,
        mean=mean,
        std=math.sqrt(spread / values),
        min=min(part["min"] for part in known),
        max=max(part["max"] for part in known),
        bounds=max(known, key=lambda part: part["values"])["bounds"],
    )
