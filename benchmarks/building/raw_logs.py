"""Raw logs of any size for the benchmarks: the training half of jobs.make_demo_logs, drawn once and kept."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.errors import InputError
from jobs.demo_logs.chunks import ChunkResult, Sampler, Split, calibrate
from jobs.demo_logs.drawing import draw_in_order, make_tasks, with_progress, write_files
from jobs.demo_logs.options import Options
from jobs.demo_logs.plan import draw_plan
from jobs.demo_logs.world import build_world
from jobs.make_demo_logs import num_cores
from storage import outputs, staging
from storage.json_files import read_json, write_json

LOG = logging.getLogger(__name__)

INFO_NAME = "raw_logs.json"
OUTPUT = outputs.Kind(
    content="raw logs of the benchmarks",
    manifest=INFO_NAME,
    keys=frozenset(("contexts",)),
    names=r"(sample_skeleton|common_features)_train\.csv",
)
BYTES_PER_CONTEXT = 28_600  # of raw log, both files, on average
# What a run needs beside the logs themselves: a shuffle and samples of the largest size.
SCRATCH_PER_RAW = 1.5


@dataclass(frozen=True)
class Logs:
    """The two files of one size."""

    skeleton: str
    common: str
    bytes: int


def draw_missing(folders: dict[Path, int]) -> dict[Path, Logs]:
    """The logs of every folder, drawn where they are missing. folders: contexts by folder."""
    missing = {folder: contexts for folder, contexts in folders.items() if not _is_drawn(folder, contexts)}
    _check_space(folders, missing)
    for folder, contexts in missing.items():
        LOG.info("drawing about %.0f MB of raw logs into %s", contexts * BYTES_PER_CONTEXT / 1e6, folder)
        draw(str(folder), contexts)
    return {folder: logs_in(folder) for folder in folders}


def draw(out: str, contexts: int) -> None:
    """Draw the training half of a world of this many contexts, without its truth; `out` appears whole."""
    outputs.refuse_foreign(out, OUTPUT)
    options = Options(contexts=contexts)
    options.check()
    world = build_world(options.seed, contexts)
    plan = draw_plan(options.seed, 0, contexts, world)
    intercepts = calibrate(Sampler(world, plan, options.list_scale), options.ctr, options.cvr)
    splits = (Split("train", "_train", plan),)
    tasks = make_tasks(splits)
    with staging.beside(out) as staged:
        results = draw_in_order(tasks, num_cores(), (world, splits, options.list_scale, intercepts))
        write_files(staged, with_progress(_without_truth(results), len(tasks)))
        write_json(f"{staged}/{INFO_NAME}", {"contexts": contexts})
        outputs.publish(staged, out, OUTPUT, overwrite=True)


def _without_truth(results: Iterator[ChunkResult]) -> Iterator[ChunkResult]:
    for result in results:
        parts = {name: part for name, part in result.parts.items() if not name.startswith("truth")}
        yield result._replace(parts=parts)


def _is_drawn(folder: Path, contexts: int) -> bool:
    info = folder / INFO_NAME
    return info.exists() and read_json(str(info)) == {"contexts": contexts}


def _check_space(folders: dict[Path, int], missing: dict[Path, int]) -> None:
    """Stop before any work where the disk is too small."""
    needed = sum(missing.values()) + SCRATCH_PER_RAW * max(folders.values())
    gigabytes = needed * BYTES_PER_CONTEXT / 1e9
    folder = next(iter(folders)).parent
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e9
    LOG.info("disk: %.1f GB free, up to %.1f GB needed", free, gigabytes)
    if free < gigabytes:
        raise InputError(
            f"{folder}: {free:.1f} GB free, expected {gigabytes:.1f} GB for raw logs, shuffle and samples. "
            "Choose another --out or smaller --sizes."
        )


def logs_in(folder: Path) -> Logs:
    """The logs that `draw` left in a folder."""
    skeleton, common = (folder / f"{name}_train.csv" for name in ("sample_skeleton", "common_features"))
    return Logs(str(skeleton), str(common), skeleton.stat().st_size + common.stat().st_size)
