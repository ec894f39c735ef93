"""Memory and processor time of a process and everything it started: a driver, its JVM, the Python workers."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil

Kind = Literal["driver", "jvm", "worker", "other"]
SAMPLES_PER_PSS = 5  # the proportional size makes the kernel walk the page tables


class MemoryMarks:
    """High-water marks in bytes of the tree below a process, by kind of process, one sample at a time.

    Resident sizes are the kernel's own high-water marks (VmHWM), so only what a process does between its
    last sample and its end is missed. A forked worker shares most of its pages with the one it was forked
    from; its proportional size (PSS) divides them among those who share them.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._samples = 0
        self.resident: dict[Kind, int] = {}  # of the largest process of its kind
        self.proportional: dict[Kind, int] = {}
        self.total = 0  # proportional, of all processes together

    def sample(self) -> None:
        with_pss = self._samples % SAMPLES_PER_PSS == 0
        self._samples += 1
        total = 0
        for kind, process in _tree(self._root):
            self._raise(self.resident, kind, _proc_bytes(process.pid, "status", "VmHWM"))
            if with_pss and kind != "other":  # a child that the JVM is about to start still has its memory
                pss = _proc_bytes(process.pid, "smaps_rollup", "Pss")
                self._raise(self.proportional, kind, pss)
                total += pss
        self.total = max(self.total, total)

    @staticmethod
    def _raise(marks: dict[Kind, int], kind: Kind, found: int) -> None:
        marks[kind] = max(marks.get(kind, 0), found)


def cpu_seconds(pid: int | None = None) -> Counter[str]:
    """User and system seconds of a process (default: this one) and all below it: of the JVM, of the rest.

    Processes that have ended are counted with the parent that waited for them.
    """
    seconds = Counter({"jvm": 0.0, "python": 0.0})
    for kind, process in _tree(psutil.Process(pid)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has ended: its parent counts it
            continue
        seconds["jvm" if kind == "jvm" else "python"] += times.user + times.system
        seconds["python"] += times.children_user + times.children_system
    return seconds


def busy_seconds() -> float:
    """Seconds that all cores of the machine were not idle so far, those a hypervisor took away included."""
    times = psutil.cpu_times()
    # The time of guests is part of `user` and `nice`.
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _tree(root: psutil.Process) -> Iterator[tuple[Kind, psutil.Process]]:
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:  # it has ended
        return
    for process in processes:
        try:
            name = process.name()
        except psutil.Error:
            continue
        if process.pid == root.pid:
            yield "driver", process
        elif name == "java":
            yield "jvm", process
        else:
            yield "worker" if name.startswith("python") else "other", process


def _proc_bytes(pid: int, file: str, key: str) -> int:
    """A line such as `VmHWM:  1234 kB` of /proc/PID/FILE; 0 where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
