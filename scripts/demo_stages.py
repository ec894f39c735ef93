"""The stages of the demo: its commands in order, and what each has made, read from the outputs themselves."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.evaluation.config import load_evaluate_config

BIN = Path(sys.executable).parent
STAGES_NAME = "logs/stages.json"  # in the demo's folder: what each stage ran and took


@dataclass(frozen=True)
class Size:
    """How much data: options of make_demo_logs, and of training where the configuration's do not fit."""

    logs: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    gates: bool = True  # few impressions break them by chance


@dataclass(frozen=True)
class World:
    """Whose logs are drawn. logs: options of build_samples, with what make_demo_logs calls their values."""

    config: str
    item: str  # the field that is the item
    logs: tuple[tuple[str, str], ...]
    schema: tuple[str, ...] = ()  # the option that names it where it is not the default one


SIZES = {
    "default": Size(),
    "tiny": Size(
        logs=("--contexts", "300", "--list-scale", "0.2"),
        train=("--set", "train.batch_size=256", "--set", "train.log_every=10"),
        gates=False,
    ),
}


WORLDS = {
    "ali_ccp": World(
        "configs/demo.yaml",
        item="205",
        logs=(("--skeleton", "sample_skeleton_{split}.csv"), ("--common", "common_features_{split}.csv")),
    ),
    "shop": World(
        "configs/shop.yaml",
        item="product",
        logs=(("--impressions", "impressions_{split}"), ("--contexts", "contexts_{split}")),
        schema=("--schema", "configs/schemas/shop.yaml"),
    ),
}


@dataclass(frozen=True)
class Stage:
    """Commands that run side by side; `outcome` says what they made, read from the outputs themselves."""

    name: str
    commands: list[list[str]]
    output: Path
    outcome: Callable[[], str]


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def stages(world: World, size: Size, out: Path, config: str, workers: int) -> list[Stage]:
    """The commands in order; each finds its input where the one before left it."""
    raw = out / "raw"
    samples = out / "samples"
    train = samples / "split=train"
    test = samples / "split=test"
    run = out / "run"
    predictions = run / "predictions"
    metrics = run / "metrics.json"
    profile = run / "profile.json"
    python = [sys.executable, "-m"]
    fields = (*load_evaluate_config(config).slices, world.item)
    kept = [part for field in fields for part in ("--keep", field)]
    workers_command = [str(BIN / "horovodrun"), "-np", str(workers), "-H", f"localhost:{workers}", *python]

    def build(split: str) -> list[str]:
        logs = [part for option, name in world.logs for part in (option, f"{raw}/{name.format(split=split)}")]
        out = ["--out", f"{samples}/split={split}", "--config", config, "--overwrite"]
        return [*python, "jobs.build_samples", *logs, *world.schema, *out]

    return [
        Stage(
            "draw raw logs",
            [[*python, "jobs.make_demo_logs", "--out", str(raw), *world.schema, *size.logs, "--overwrite"]],
            raw,
            lambda: _logs_outcome(raw),
        ),
        # Side by side, as much of their time is the start of Spark.
        Stage(
            "build samples",
            [build("train"), build("test")],
            samples,
            lambda: f"train {_samples_outcome(train)}; test {_samples_outcome(test)}",
        ),
        Stage(
            f"train, {workers} workers",
            [
                [*workers_command, "esmm.train", "--config", config, "--train", str(train)]
                + ["--valid", str(test), "--run", str(run), *size.train, "--overwrite"]
            ],
            run,
            lambda: _training_outcome(run),
        ),
        Stage(
            f"predict, {workers} workers",
            [
                [*workers_command, "esmm.predict", "--run", str(run), "--samples", str(test)]
                + ["--out", str(predictions), "--overwrite", *kept]
            ],
            predictions,
            lambda: f"{read_json(predictions / '_manifest.json')['rows']:,} predictions",
        ),
        # Side by side again; not beside the workers, which wait for each other at every step.
        Stage(
            "evaluate, and profile",
            [
                [*python, "jobs.evaluate", "--predictions", str(predictions), "--out", str(metrics)]
                + ["--truth", str(raw / "truth_test.csv"), "--train", str(train), "--config", config],
                [*python, "jobs.profile_samples", "--samples", str(test), "--against", str(train)]
                + [*(("--config", config) if size.gates else ()), "--out", str(profile)],
            ],
            metrics,
            lambda: f"{read_json(metrics)['ctr']['rows']:,} impressions judged",
        ),
        Stage(
            "report",
            [
                [*python, "jobs.make_report", "--run", str(run), "--profile", str(profile)]
                + ["--stages", str(out / STAGES_NAME), "--runs", str(out)]
            ],
            run / "report.html",
            lambda: "a page of the run, and one over all runs",
        ),
    ]


def _logs_outcome(raw: Path) -> str:
    files = (path for path in raw.rglob("*.*") if not path.name.startswith("truth"))
    return f"{sum(path.stat().st_size for path in files) / 1e6:,.0f} MB of raw logs"


def _samples_outcome(folder: Path) -> str:
    made = read_json(folder / "_manifest.json")
    counts = made["counts"]
    broken = sum(made["quarantine"].values())
    return f"{counts['impressions']:,} impressions in {counts['rows']:,} rows, {broken} lines quarantined"


def _training_outcome(run: Path) -> str:
    last = json.loads((run / "train.jsonl").read_text().splitlines()[-1])
    return f"step {last['step']:,}"
