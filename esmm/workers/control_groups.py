"""What control groups let this process take of the machine's memory: of containers, Slurm, systemd, YARN.

A group's limit holds for everything in it and in the groups below it, so the process's own group counts and
each one above. Version 2 has one tree of groups, version 1 one for memory; a container sees them from its own
group on, or by names that it cannot find, and then its own is the root.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class _Version:
    """Where a version keeps its groups, and the files of a group. cache: entries of `memory.stat`."""

    tree: str
    limit: str
    used: str
    cache: tuple[str, str]


VERSIONS = (
    _Version("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    _Version(
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)


def own_group(text: str | None = None) -> str:
    """The group that counts this process's memory. text: of /proc/self/cgroup.

    Lines are "0::PATH" in version 2 and "NUMBER:CONTROLLERS:PATH" in version 1, which has the memory where
    both are mounted.
    """
    lines = (_read(OWN) if text is None else text).splitlines()
    paths = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    version_1 = [path for names, path in paths.items() if "memory" in names.split(",")]
    group = PurePosixPath([*version_1, paths.get("", "/")][0])
    return "/" if ".." in group.parts else str(group)  # a path with .. lies outside of what is visible here


def free_bytes(group: str, root: Path = ROOT) -> dict[str, int]:
    """Bytes that a group and those above it can still take, of each that has a limit."""
    return dict(_limited(PurePosixPath(group), root))


def _limited(group: PurePosixPath, root: Path) -> Iterator[tuple[str, int]]:
    for version in VERSIONS:
        for path in (group, *group.parents):
            free = _free(root / version.tree / path.relative_to("/"), version)
            if free is not None:
                yield str(path), free


def _free(folder: Path, version: _Version) -> int | None:
    """Limit less use. Pages of files that the kernel keeps count as use, but it gives them up when asked."""
    limit = _read(folder / version.limit).strip()
    used = _read(folder / version.used).strip()
    if not (limit.isdecimal() and used.isdecimal()):  # no such group, no rights, or a limit of "max"
        return None
    stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    cache = sum(int(stat.get(name, 0)) for name in version.cache)
    return max(0, int(limit) - max(0, int(used) - cache))


def _read(path: Path) -> str:
    """A file's text, or none where there is no such file or it is not for us."""
    try:
        return path.read_text()
    except OSError:
        return ""
