"""One run of a comparison: train, predict, evaluate, each by the project's own command."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from safetensors import safe_open

from benchmarks.models.presets import PLAIN, REFERENCE, Preset
from cli.errors import InputError
from schemas.metrics import Metrics
from storage.json_files import write_json

DENSE_NAME = "dense.safetensors"
RUN_NAME = "compared.json"


@dataclass(frozen=True)
class Data:
    """Paths of the samples, and of the true probabilities of the test half, where they are known."""

    train: str
    valid: str
    test: str
    truth: str | None


@dataclass(frozen=True)
class Settings:
    """What all models are given alike. config: a file; options: `--set` of esmm.train."""

    config: str
    options: tuple[str, ...]
    workers: int

    @property
    def content(self) -> dict[str, Any]:
        """They themselves, with what is in the file."""
        return {**asdict(self), "sha256": hashlib.sha256(Path(self.config).read_bytes()).hexdigest()}


class Compared(TypedDict):
    """What a run has come to."""

    model: str
    seed: int
    train_seconds: float
    parameters: int
    metrics: Metrics


def compared(preset: Preset, seed: int, data: Data, settings: Settings, out: Path) -> Compared:
    """A run of the comparison in `out`; one that stands there, made of the same, is taken as it is."""
    folder = out / "runs" / f"{preset.name}-{seed}"
    made_of = _made_of(preset, seed, data, settings)
    if not _stands(folder, made_of):
        _train(preset, seed, data, settings, folder)
        _judge(preset, seed, data, folder, out)
        write_json(str(folder / RUN_NAME), {"made_of": made_of})
    return Compared(
        model=preset.name,
        seed=seed,
        train_seconds=_train_seconds(folder),
        parameters=_parameters(folder),
        metrics=cast(Metrics, json.loads((folder / "metrics.json").read_text())),
    )


def trained_aucs(preset: Preset, seed: int, data: Data, settings: Settings, folder: Path) -> dict[str, float]:
    """Of a run in `folder` on its validation samples, after the last step; one made of the same is kept."""
    made_of = _made_of(preset, seed, data, settings)
    if not _stands(folder, made_of):
        _train(preset, seed, data, settings, folder)
        write_json(str(folder / RUN_NAME), {"made_of": made_of})
    last = [entry for entry in _log(folder) if entry["kind"] == "epoch"][-1]
    return {name: last[name] for name in ("auc_ctr", "auc_cvr", "auc_ctcvr")}


def _made_of(preset: Preset, seed: int, data: Data, settings: Settings) -> dict[str, Any]:
    content = {"preset": preset.sha256, "seed": seed, **asdict(data), **settings.content}
    found: dict[str, Any] = json.loads(json.dumps(content))  # tuples as JSON has them
    return found


def _stands(folder: Path, made_of: dict[str, Any]) -> bool:
    mark = folder / RUN_NAME
    return mark.exists() and json.loads(mark.read_text())["made_of"] == made_of


def _train(preset: Preset, seed: int, data: Data, settings: Settings, folder: Path) -> None:
    command = [sys.executable, "-m", "esmm.train", "--config", settings.config]
    command += ["--train", data.train, "--valid", data.valid, "--run", str(folder), "--overwrite"]
    for option in (*PLAIN, *settings.options, *preset.settings, f"train.seed={seed}"):
        command += ["--set", option]
    if settings.workers > 1:
        launcher = str(Path(sys.executable).parent / "horovodrun")
        command = [launcher, "-np", str(settings.workers), "-H", f"localhost:{settings.workers}", *command]
    _run(command)


def _judge(preset: Preset, seed: int, data: Data, folder: Path, out: Path) -> None:
    """metrics.json of the run's predictions, compared with the reference of the same seed."""
    predictions = str(folder / "predictions")
    predict = ["esmm.predict", "--run", str(folder), "--samples", data.test, "--out", predictions]
    _run([sys.executable, "-m", *predict, "--overwrite"])
    evaluate = ["jobs.evaluate", "--predictions", predictions, "--out", str(folder / "metrics.json")]
    if data.truth:
        evaluate += ["--truth", data.truth]
    if preset.name != REFERENCE:
        evaluate += ["--against", str(out / "runs" / f"{REFERENCE}-{seed}")]
    _run([sys.executable, "-m", *evaluate])
    shutil.rmtree(predictions)  # of all runs together they would fill a disk


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _train_seconds(folder: Path) -> float:
    """Of the steps alone, without start, validation and checkpoints."""
    return float(sum(entry["train_seconds"] for entry in _log(folder) if entry["kind"] == "epoch"))


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def _parameters(folder: Path) -> int:
    """Numbers of the network, without the embedding and without the optimiser's."""
    newest = max(folder.glob(f"checkpoints/*/{DENSE_NAME}"), key=lambda path: path.stat().st_mtime)
    with safe_open(newest, "pt") as found:
        names = [name for name in found.keys() if name.startswith("network.")]  # noqa: SIM118
        sizes = [found.get_slice(name).get_shape() for name in names]
    return sum(math.prod(size) for size in sizes)
