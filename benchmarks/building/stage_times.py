"""Where the time of a Spark job goes, read from its event log."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

# One plain file per application.
EVENT_LOG_OPTIONS = {
    "spark.eventLog.enabled": "true",
    "spark.eventLog.rolling.enabled": "false",
    "spark.eventLog.compress": "false",
}
HEADER = (
    "stage                          tasks  wall s  task s  longest  JVM cpu s  GC s  shuffled MB  spilled MB"
)


@dataclass
class Stage:
    """Sums over the successful tasks of a stage. JVM time only: Python workers report no time of theirs."""

    reads_shuffle: bool = False
    tasks: int = 0
    begin: float = float("inf")  # seconds since 1970, as `end`
    end: float = 0.0
    task_seconds: list[float] = field(default_factory=list)
    jvm_cpu_seconds: float = 0.0
    gc_seconds: float = 0.0
    shuffle_bytes_written: int = 0
    bytes_spilled: int = 0

    def add(self, event: dict[str, Any]) -> None:
        """Add a SparkListenerTaskEnd."""
        info = event["Task Info"]
        metrics = event["Task Metrics"]
        read = metrics["Shuffle Read Metrics"]
        write = metrics["Shuffle Write Metrics"]
        self.reads_shuffle |= read["Local Bytes Read"] + read["Remote Bytes Read"] > 0
        self.tasks += 1
        self.begin = min(self.begin, info["Launch Time"] / 1e3)
        self.end = max(self.end, info["Finish Time"] / 1e3)
        self.task_seconds.append((info["Finish Time"] - info["Launch Time"]) / 1e3)
        self.jvm_cpu_seconds += metrics["Executor CPU Time"] / 1e9
        self.gc_seconds += metrics["JVM GC Time"] / 1e3
        self.shuffle_bytes_written += write["Shuffle Bytes Written"]
        self.bytes_spilled += metrics["Disk Bytes Spilled"]

    def figures(self) -> dict[str, Any]:
        return {
            "what": "sort, unpack, write" if self.reads_shuffle else "read, parse, shuffle",
            "tasks": self.tasks,
            "seconds": self.end - self.begin,
            "task_seconds": sum(self.task_seconds),
            "longest_task_seconds": max(self.task_seconds),
            "jvm_cpu_seconds": self.jvm_cpu_seconds,
            "gc_seconds": self.gc_seconds,
            "shuffle_megabytes_written": self.shuffle_bytes_written / 1e6,
            "megabytes_spilled": self.bytes_spilled / 1e6,
        }


def stage_times(log_folder: Path, begin: float, end: float) -> dict[str, Any]:
    """The stages that ran between two moments (seconds since 1970), and the time when no task ran."""
    stages: dict[int, Stage] = {}
    for event in _task_ends(log_folder):
        if event["Task Info"]["Launch Time"] / 1e3 >= begin:
            stages.setdefault(event["Stage ID"], Stage()).add(event)
    ordered = sorted(stages.values(), key=lambda stage: stage.begin)
    between = sum(max(0.0, later.begin - earlier.end) for earlier, later in pairwise(ordered))
    return {
        "planning_seconds": ordered[0].begin - begin,
        "stages": [stage.figures() for stage in ordered],
        "between_stages_seconds": between,
        "commit_and_publish_seconds": end - max(stage.end for stage in ordered),
    }


def _task_ends(log_folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(log_folder.iterdir()):
        with path.open() as lines:
            for line in lines:
                if '"SparkListenerTaskEnd"' not in line:
                    continue
                event = json.loads(line)
                if event["Task End Reason"]["Reason"] == "Success":
                    yield event


def table(profile: dict[str, Any]) -> str:
    """`stage_times` for a person."""
    lines = [HEADER]
    lines += [
        f"{stage['what']:<30} {stage['tasks']:5d} {stage['seconds']:7.1f} {stage['task_seconds']:7.1f} "
        f"{stage['longest_task_seconds']:8.1f} {stage['jvm_cpu_seconds']:10.1f} {stage['gc_seconds']:5.1f} "
        f"{stage['shuffle_megabytes_written']:12.0f} {stage['megabytes_spilled']:11.0f}"
        for stage in profile["stages"]
    ]
    for what in ("planning", "between_stages", "commit_and_publish"):
        lines.append(f"{what.replace('_', ' '):<36} {profile[f'{what}_seconds']:7.1f}")
    return "\n".join(lines)
