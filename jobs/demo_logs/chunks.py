"""Chunks of the demo logs' files: the unit that a process draws, whoever it is, with the same bytes."""

from typing import NamedTuple

import numpy as np

from jobs.demo_logs.draw import DIRT_CONVERSION, DIRT_NO_ITEM, ITEM, draw_records, draw_rows
from jobs.demo_logs.laws import Array
from jobs.demo_logs.plan import Plan
from jobs.demo_logs.render import make_texts, render
from jobs.demo_logs.scratch import MAX_FEATURES, MAX_ROW_FEATURES, Lines, new_history, new_lines
from jobs.demo_logs.world import PlantedWorld
from schemas import truth

SPLITS = ("train", "test")
CHUNK = 200  # contexts or segments of a task: about 3 MB of log
CALIBRATION_SEGMENTS = 4000  # enough for the mean rates to hold within a few percent


class Split(NamedTuple):
    """What is drawn of one plan: a half of the logs, or the logs of a day."""

    name: str
    ending: str  # of its files' names
    plan: Plan
    first_id: int = 1  # sample_id of the first row
    item_id: Array | None = None  # int64 [items]: the items' ids in the logs; None: evenly spaced ones


class ChunkTask(NamedTuple):
    """One chunk of one file: contexts of the common file or segments of the skeleton."""

    split: int  # which one of the drawer's
    kind: str  # "common" or "skeleton"
    first: int
    end: int


class ChunkResult(NamedTuple):
    """A drawn chunk: bytes per file name, and what to add to the split's counts."""

    split: str
    parts: dict[str, bytes]
    counts: dict[str, int]


def sigmoid(logit: Array) -> Array:
    """The probability of a logit."""
    return 1.0 / (1.0 + np.exp(-logit))


class Sampler:
    """Draws lines of one plan; a line depends on its numbers alone, not on what was drawn before."""

    def __init__(self, world: PlantedWorld, plan: Plan, list_scale: float) -> None:
        self.world = world
        self.plan = plan
        self.history = new_history(world)
        self.contexts = plan.contexts_for(list_scale)

    def common(self, first: int, end: int) -> Lines:
        """Common records first..end-1, in the order of the common file."""
        lines = new_lines(end - first, MAX_FEATURES)
        draw_records(self.world, self.history, self.contexts, self.plan.common_order[first:end], lines)
        return lines

    def skeleton(self, first: int, end: int, intercepts: Array) -> Lines:
        """Rows of the segments first..end-1, with labels drawn with `intercepts` (float64 [2])."""
        first_row = int(self.plan.segment_row[first])
        end_row = int(self.plan.segment_row[end])
        lines = new_lines(end_row - first_row, MAX_ROW_FEATURES)
        segments = self.plan.segments(first, end)
        dirt = self.plan.dirt(first_row, end_row)
        draw_rows(self.world, self.history, self.contexts, segments, dirt, intercepts, lines)
        return lines


class Drawer:
    """Draws tasks: lines to bytes, and counts."""

    def __init__(
        self, world: PlantedWorld, splits: tuple[Split, ...], list_scale: float, intercepts: Array
    ) -> None:
        self.world = world
        self.splits = splits
        self.intercepts = intercepts
        self.texts = make_texts()
        self.samplers = [Sampler(world, split.plan, list_scale) for split in splits]

    def draw(self, task: ChunkTask) -> ChunkResult:
        """The bytes and counts of a task."""
        return self._common(task) if task.kind == "common" else self._skeleton(task)

    def _common(self, task: ChunkTask) -> ChunkResult:
        split = self.splits[task.split]
        lines = render(self.texts, self.samplers[task.split].common(task.first, task.end))
        counts = {"contexts": task.end - task.first, "common_bytes": len(lines)}
        return ChunkResult(split.name, {f"common_features{split.ending}.csv": lines}, counts)

    def _skeleton(self, task: ChunkTask) -> ChunkResult:
        split = self.splits[task.split]
        plan = split.plan
        drawn = self.samplers[task.split].skeleton(task.first, task.end, self.intercepts)
        first_row = int(plan.segment_row[task.first])
        first_id = split.first_id + first_row
        kinds = plan.dirt(first_row, first_row + drawn.labels.shape[0])
        logits = drawn.labels[:, :2] + self.intercepts
        drawn_with = truth_lines(first_id, logits, kinds != DIRT_CONVERSION)
        if split.item_id is not None:
            give_ids(self.world, drawn, split.item_id)
        rows = render(self.texts, drawn, first_id)
        counts = count_rows(drawn.labels, kinds) | {"skeleton_bytes": len(rows)}
        counts["rows_without_user_id"] = rows_without_user(plan, task.first, task.end)
        header = f"{truth.HEADER}\n".encode() if task.first == 0 else b""
        parts = {
            f"sample_skeleton{split.ending}.csv": rows,
            truth.file_name(split.ending): header + drawn_with,
        }
        return ChunkResult(split.name, parts, counts)


def give_ids(world: PlantedWorld, lines: Lines, item_id: Array) -> None:
    """Put the ids of `item_id` (int64 [items]) in the place of the items' own, in `lines`."""
    features = int(lines.start[-1])
    of_item = np.flatnonzero(lines.field[:features] == ITEM)
    lines.id[of_item] = item_id[(lines.id[of_item] - world.id_start[ITEM]) // world.id_stride]


def count_rows(labels: Array, kinds: Array) -> dict[str, int]:
    """Rows, labels and dirt of a chunk; clicks and conversions are those of valid rows."""
    valid = kinds != DIRT_CONVERSION
    return {
        "rows": labels.shape[0],
        "valid_rows": int(valid.sum()),
        "clicks": int(labels[valid, 2].sum()),
        "conversions": int(labels[valid, 3].sum()),
        "dirt_conversion_without_click": int((~valid).sum()),
        "dirt_without_item": int((kinds == DIRT_NO_ITEM).sum()),
    }


def rows_without_user(plan: Plan, first: int, end: int) -> int:
    """Impressions of the segments first..end-1 whose context has no user id."""
    absent = ~plan.has_user_id[plan.segment_context[first:end]]
    return int(plan.segment_count[first:end][absent].sum())


def truth_lines(first_id: int, logits: Array, valid: Array) -> bytes:
    """The lines of `schemas.truth` for the valid rows; logits float64 [rows, 2]."""
    rows = np.flatnonzero(valid)
    numbered = zip(rows + first_id, sigmoid(logits[rows]), strict=True)
    return "".join(f"{sample_id},{p:.8f},{q:.8f}\n" for sample_id, (p, q) in numbered).encode()


def solve_intercept(logits: Array, weights: Array, rate: float) -> float:
    """The intercept with which the weighted mean of sigmoid(logits + intercept) is `rate`, by bisection."""
    low = -40.0
    high = 40.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if np.average(sigmoid(logits + middle), weights=weights) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def calibrate(sampler: Sampler, ctr_rate: float, cvr_rate: float) -> Array:
    """float64 [2]: intercepts that give the wanted mean CTR, and the wanted mean CVR of clicks."""
    segments = min(CALIBRATION_SEGMENTS, sampler.plan.segment_context.shape[0])
    firsts = range(0, segments, CHUNK)
    chunks = [sampler.skeleton(a, min(a + CHUNK, segments), np.zeros(2)).labels for a in firsts]
    labels = np.concatenate(chunks)
    ctr = solve_intercept(labels[:, 0], np.ones(labels.shape[0]), ctr_rate)
    # The CVR of clicks is the mean of p_cvr weighted by the chance of the click.
    return np.array([ctr, solve_intercept(labels[:, 1], sigmoid(labels[:, 0] + ctr), cvr_rate)])
