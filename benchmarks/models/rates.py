"""How models do with less to learn from: the sampling-rate curves of the ESMM paper.

    python -m benchmarks.models.compare              # draws the world and trains on all of it
    python -m benchmarks.models.rates --models base division esmm_ns

Trains on 1, 5 and 20 % of the contexts of the comparison in --out, whose runs are those of 100 %, and judges
on the same test half. A smaller share's contexts are in the larger ones. A second call goes on where the
first was stopped.
"""

import argparse
import json
import logging
import shutil
from pathlib import Path
from statistics import mean

from benchmarks.common.machine import machine
from benchmarks.models.presets import Preset, read_presets
from benchmarks.models.runs import Data, Settings, trained_aucs
from benchmarks.models.study import Study, StudyTable
from benchmarks.models.summary import mean_and_deviation
from benchmarks.models.world import build_split
from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from storage import publishing

LOG = logging.getLogger("benchmarks.models.rates")
PAPER = ["base", "aman", "oversampling", "unbias", "division", "esmm_ns"]  # its Table 2, esmm beside
SHARES = (0.01, 0.05, 0.2)
TASKS = {"auc_cvr": "CVR on clicks", "auc_ctcvr": "CTCVR"}
Aucs = dict[str, float]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.models.rates", __doc__)
    parser.add_argument("--models", nargs="+", default=PAPER, help="files of configs/models (%(default)s)")
    parser.add_argument("--out", default="build/compare", help="folder of the comparison (%(default)s)")
    return parser.parse_args(argv)


def frozen(out: Path) -> tuple[Settings, Data, list[int]]:
    """What the comparison was made with."""
    path = out / "frozen.json"
    if not path.exists():
        raise InputError(f"{out}: expected a comparison, found none. Run benchmarks.models.compare first.")
    content = json.loads(path.read_text())
    told = content["config"]
    settings = Settings(told["config"], tuple(told["options"]), told["workers"])
    return settings, Data(**content["data"]), content["seeds"]


def part_of(out: Path, share: float, config: str) -> str:
    """Samples of a share of the training half's contexts: the hash of a context says whether it is in."""
    folder = out / "rates" / f"{share:g}"
    part = folder / "samples" / "split=valid"
    if not publishing.is_complete(str(part)):
        raw = out / "raw"
        logs = ["--skeleton", f"{raw}/sample_skeleton_train.csv"]
        build_split(
            folder / "samples",
            "train",
            [*logs, "--common", f"{raw}/common_features_train.csv"],
            share,
            config,
        )
        shutil.rmtree(folder / "samples" / "split=train")
    return str(part)


def whole(out: Path, model: str, seed: int) -> Aucs:
    """Of the comparison's run on all contexts."""
    path = out / "runs" / f"{model}-{seed}" / "metrics.json"
    if not path.exists():
        raise InputError(f"{path}: expected a run of the comparison, found none. Run it with {model}.")
    metrics = json.loads(path.read_text())
    return {f"auc_{task}": metrics[task]["auc"]["value"] for task in ("ctr", "cvr", "ctcvr")}


def train_all(presets: list[Preset], out: Path) -> dict[tuple[str, float], list[Aucs]]:
    """AUCs of each model with each share, a value per seed."""
    settings, data, seeds = frozen(out)
    found: dict[tuple[str, float], list[Aucs]] = {}
    for share in SHARES:
        train = part_of(out, share, settings.config)
        for preset in presets:
            for seed in seeds:
                folder = out / "rates" / f"{share:g}" / f"{preset.name}-{seed}"
                aucs = trained_aucs(preset, seed, Data(train, data.test, data.test, None), settings, folder)
                found.setdefault((preset.name, share), []).append(aucs)
                LOG.info("%s, %g %%, seed %d: %s", preset.name, 100 * share, seed, aucs)
    for preset in presets:
        found[preset.name, 1.0] = [whole(out, preset.name, seed) for seed in seeds]
    return found


def table(found: dict[tuple[str, float], list[Aucs]], task: str) -> StudyTable:
    """A row per model, a column per share."""
    models = list(dict.fromkeys(model for model, _ in found))
    rows = [[model, *(_cell(found[model, share], task) for share in (*SHARES, 1.0))] for model in models]
    head = ["model", *(f"{share:.0%}" for share in (*SHARES, 1.0))]
    lines = {
        model: [[share, mean(one[task] for one in found[model, share])] for share in (*SHARES, 1.0)]
        for model in models
    }
    return StudyTable(f"AUC of {TASKS[task]}, by share of the training samples", head, rows, lines)


def _cell(aucs: list[Aucs], task: str) -> str:
    return mean_and_deviation([one[task] for one in aucs], ".4f")


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    out = Path(args.out)
    found = train_all(read_presets(args.models), out)
    on = machine()
    seeds = len(next(iter(found.values())))
    lead = (
        f"The world and the test half of the comparison, {seeds} seed(s), mean ± deviation; {on['date']}, "
        f"{on['processor']}, {on['cores']} cores."
    )
    Study("rates", "Less to learn from", lead, [table(found, task) for task in TASKS]).write(out)


if __name__ == "__main__":
    exit_with_message(main)
