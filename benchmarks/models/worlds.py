"""How near to the best possible AUC: planted worlds of hidden vectors that nothing was tuned on.

    python -m benchmarks.models.worlds --worlds 103 104 --seeds 3

Draws the worlds, trains the paper's ESMM, the default and, with the first seed, the default that is given the
true vectors of users and items as features, and prints the share of the way from 0.5 to the AUC of the true
probabilities. A second call goes on where the first was stopped.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.csv as pc
import torch

from benchmarks.common.machine import machine
from benchmarks.models.compare import FIRST_SEED
from benchmarks.models.one_epoch import train_epoch
from benchmarks.models.presets import PLAIN
from benchmarks.models.study import Study, StudyTable, add_run, read_runs
from benchmarks.models.summary import mean_and_deviation
from benchmarks.models.true_vectors import ModelWithVectors, TrueVectors
from benchmarks.models.world import draw_world
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.model.model import Model
from esmm.training.train_step import TrainStep, initialise, make_model
from esmm.training.validation import score
from esmm.training_run import base_rates
from esmm.workers.world import World

LOG = logging.getLogger("benchmarks.models.worlds")
CONFIG = "configs/demo.yaml"
PAPER, DEFAULT, GIVEN = "esmm, of the paper", "the default", "the default, given the true vectors"
COLUMNS = ("CTR", "CVR, clicked", "CTCVR", "pCVR, all")
Array = npt.NDArray[np.float64]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.models.worlds", __doc__)
    parser.add_argument(
        "--worlds", nargs="+", type=int, default=[103, 104], help="seeds of them (%(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each model (%(default)s)")
    parser.add_argument(
        "--contexts", type=int, default=24_200, help="of the training half, 58 impressions each (%(default)s)"
    )
    parser.add_argument("--out", default="build/compare", help="folder of the comparison (%(default)s)")
    return parser.parse_args(argv)


def shares(model: Model, loader: Loader, truth: str, world: World) -> list[float]:
    """Of the way to the best AUC, for each of `COLUMNS`."""
    ids, found = [], []
    for batch, scores in score(model, loader, world):
        assert batch.keys is not None
        ids.append(batch.keys["sample_id"].to_numpy())
        labels = torch.stack([batch.click, batch.click * batch.conversion], 1)
        found.append(torch.cat([scores[:, :2], labels], 1))
    p_ctr, p_cvr, click, both = torch.cat(found).double().numpy().T
    best_ctr, best_cvr = _true(truth, np.concatenate(ids))
    ours = _four(p_ctr, p_cvr, click, both, best_cvr)
    best = _four(best_ctr, best_cvr, click, both, best_cvr)
    return [(a - 0.5) / (b - 0.5) for a, b in zip(ours, best, strict=True)]


def _true(path: str, ids: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    table = pc.read_csv(path).sort_by("sample_id")
    rows = np.searchsorted(table["sample_id"].to_numpy(), ids)
    return table["p_ctr"].to_numpy()[rows], table["p_cvr"].to_numpy()[rows]


def _four(p_ctr: Array, p_cvr: Array, click: Array, both: Array, true_cvr: Array) -> list[float]:
    clicked = click > 0
    return [
        weighted_auc(p_ctr, click),
        weighted_auc(p_cvr[clicked], both[clicked]),
        weighted_auc(p_ctr * p_cvr, both),
        weighted_auc(p_cvr, true_cvr),
    ]


def weighted_auc(scores: Array, positive: Array) -> float:
    """AUC of scores where each is positive with some probability; ties count half.

    scores, positive: [N]. Positives of a score beat the negatives below it and half of those at it.
    """
    distinct, group = np.unique(scores, return_inverse=True)
    ups = np.bincount(group, positive, len(distinct))
    downs = np.bincount(group, 1 - positive, len(distinct))
    return float((ups * (np.cumsum(downs) - downs / 2)).sum() / ups.sum() / downs.sum())


def run(folder: Path, kind: str, world_seed: int, contexts: int, seed: int, world: World) -> list[float]:
    """Train and judge one model on one world."""
    plain = PLAIN if kind == PAPER else ()
    config = Config.load(CONFIG, [*plain, f"train.seed={seed}"])
    window = config.loader.shuffle_window
    train, test = (str(folder / "samples" / f"split={split}") for split in ("train", "test"))
    loader = Loader(train, batch_size=config.train.batch_size, shuffle_window=window, seed=seed)
    model = make_model(config.model, loader.schema, world)
    if kind == GIVEN:
        vectors = TrueVectors.of(world_seed, contexts, loader.schema, loader.manifest["hash_seed"])
        model = ModelWithVectors(config.model, loader.schema, world, vectors)
    initialise(model, config)
    model.network.start_at(base_rates(loader.manifest["counts"]))
    trained = TrainStep(config, model, world)
    train_epoch(trained, loader, config)
    judged = Loader(test, batch_size=8192, with_keys=True)
    return shares(model, judged, str(folder / "raw" / "truth_test.csv"), world)


def run_all(args: argparse.Namespace, done: Path) -> None:
    """Train what `done` has not yet, a line for each."""
    world = World.start().use("auto")
    known = {(one["world"], one["model"], one["seed"]) for one in read_runs(done)}
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    wanted = [(number, kind, seed) for seed in seeds for number in args.worlds for kind in (PAPER, DEFAULT)]
    wanted += [(number, GIVEN, FIRST_SEED) for number in args.worlds]
    for number, kind, seed in wanted:
        folder = done.parent / str(number)
        drawn = ["--world", "latent", "--seed", str(number), "--contexts", str(args.contexts)]
        draw_world(folder, drawn, 0.0, CONFIG)
        if (number, kind, seed) in known:
            continue
        found = run(folder, kind, number, args.contexts, seed, world)
        add_run(done, {"world": number, "model": kind, "seed": seed, "shares": found})
        LOG.info("world %d, %s, seed %d: %s", number, kind, seed, [f"{share:.1%}" for share in found])


def table(runs: list[dict[str, Any]]) -> StudyTable:
    """A row per world and model."""
    rows = []
    for number in sorted({one["world"] for one in runs}):
        for kind in (PAPER, DEFAULT, GIVEN):
            some = [one["shares"] for one in runs if (one["world"], one["model"]) == (number, kind)]
            if some:
                rows.append([f"{number}: {kind}", *(_cell(column) for column in zip(*some, strict=True))])
    return StudyTable("Share of the way from 0.5 to the best possible AUC, %", ["world", *COLUMNS], rows)


def _cell(values: tuple[float, ...]) -> str:
    return mean_and_deviation([100 * value for value in values], ".1f")


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    done = Path(args.out) / "worlds" / "runs.jsonl"
    done.parent.mkdir(parents=True, exist_ok=True)
    run_all(args, done)
    on = machine()
    lead = (
        f"Worlds of hidden vectors that nothing was tuned on, {args.contexts:,} contexts to train on, one "
        f"epoch, batch 1024, {args.seeds} seed(s), mean ± deviation; {on['date']}, {on['processor']}."
    )
    Study("worlds", "How near to the best possible", lead, [table(read_runs(done))]).write(Path(args.out))


if __name__ == "__main__":
    exit_with_message(main)
