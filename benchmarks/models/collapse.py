"""Why other people's ESMM ends at AUC 0.5: clamped probabilities, and a start far from the rates.

    python -m benchmarks.models.collapse
    python -m benchmarks.models.collapse --seeds 2 --contexts 3000 --out /tmp/collapse

Draws logs at Ali-CCP's rates and trains ESMM on them with several seeds, its loss once of probabilities that
are clamped at 1e-7, as public code has them, and once of logits, as `esmm.model.loss` has it; once from 0.5
and once from the rates. The networks' learning rate is high: what pushes pCVR from 0.5 to its rate has to
carry it on below the clamp, as large numbers in the input do in other code. A second call goes on where the
first was stopped.
"""

import argparse
import logging
import math
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.machine import machine
from benchmarks.models.compare import FIRST_SEED
from benchmarks.models.one_epoch import train_epoch
from benchmarks.models.presets import PLAIN
from benchmarks.models.study import Study, StudyTable, add_run, read_runs
from benchmarks.models.world import draw_world
from benchmarks.training.train_step import make_trained
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from esmm.config import Config
from esmm.data.loader import Loader
from esmm.model.loss import Labels
from esmm.model.network import Rates
from esmm.training.train_step import TrainStep
from esmm.training.validation import auc, score
from esmm.training_run import base_rates
from esmm.workers.world import World
from schemas import manifest

LOG = logging.getLogger("benchmarks.models.collapse")
CLAMP = 1e-7
CTR, CVR = 0.039, 0.0054  # Ali-CCP's
SMALL = ("model.embedding_dim=8", "model.towers=[64, 32]", "optimizer.schedule.hold=0")
LOSSES, STARTS = ("clamped", "logits"), ("0.5", "rates")
HEAD = (
    "learning rate",
    "loss of",
    "starts at",
    "collapsed",
    "AUC CTCVR",
    "log loss CTCVR",
    "pCVR at the clamp",
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.models.collapse", __doc__)
    parser.add_argument("--seeds", type=int, default=10, help="runs of each of the four (%(default)s)")
    parser.add_argument(
        "--contexts", type=int, default=66_000, help="of the training half, 58 impressions each (%(default)s)"
    )
    parser.add_argument(
        "--dense-rates", nargs="+", type=float, default=[0.02], help="of the networks' Adam (%(default)s)"
    )
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES, help="default: both")
    parser.add_argument("--out", default="build/compare", help="folder to write (%(default)s)")
    return parser.parse_args(argv)


def clamped_sums(logits: Sequence[Tensor], labels: Labels) -> Tensor:
    """[2]: ESMM's losses of probabilities as public code clamps them, each tower's and their product."""
    p_ctr, p_cvr = (_clamped(torch.sigmoid(logit)) for logit in logits)
    return torch.stack([_loss(p_ctr, labels.click), _loss(_clamped(p_ctr * p_cvr), labels.both)])


def _clamped(p: Tensor) -> Tensor:
    return p.clamp(CLAMP, 1 - CLAMP)


def _loss(p: Tensor, positive: Tensor) -> Tensor:
    return -(positive * p.log() + (1 - positive) * (1 - p).log()).sum()


def train(loader: Loader, seed: int, rate: float, loss: str, start: str, world: World) -> TrainStep:
    """One epoch."""
    options = [*SMALL, f"train.seed={seed}", f"optimizer.dense.learning_rate={rate}"]
    config = Config.load("configs/demo.yaml", [*PLAIN, *options])
    trained = make_trained(config, loader.schema, world)
    half = start == STARTS[0]
    trained.model.network.start_at(Rates(0.5, 0.5) if half else base_rates(loader.manifest["counts"]))
    if loss == LOSSES[0]:
        trained.model.network.loss_sums = clamped_sums  # type: ignore[method-assign]
    train_epoch(trained, loader, config)
    return trained


def judge(trained: TrainStep, loader: Loader, world: World) -> dict[str, float | None]:
    """AUC and log loss of CTCVR, AUC of CTR, and the share of pCVRs at the clamp or below."""
    found = [
        torch.stack([scores[:, 0], scores[:, 1], scores[:, 2], batch.click, batch.click * batch.conversion])
        for batch, scores in score(trained.model, loader, world)
    ]
    p_ctr, p_cvr, p_ctcvr, click, both = torch.cat(found, 1)
    losses = _loss(_clamped(p_ctcvr.double()), both.double()) / len(both)
    return {
        "auc_ctr": auc(p_ctr.numpy(), click.numpy()),
        "auc_ctcvr": auc(p_ctcvr.numpy(), both.numpy()),
        "log_loss": float(losses),
        "at_clamp": float((p_cvr <= CLAMP).float().mean()),
    }


def run_all(args: argparse.Namespace, samples: Path, done: Path) -> None:
    """Train what `done` does not have yet, a line for each."""
    world = World.start().use("auto")
    known = {(one["rate"], one["loss"], one["start"], one["seed"]) for one in read_runs(done)}
    valid = Loader(str(samples / "split=valid"), batch_size=8192)
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        loader = Loader(str(samples / "split=train"), batch_size=1024, shuffle_window=2048, seed=seed)
        for rate, loss, start in product(args.dense_rates, args.losses, STARTS):
            if (rate, loss, start, seed) in known:
                continue
            found = judge(train(loader, seed, rate, loss, start, world), valid, world)
            line = {"rate": rate, "loss": loss, "start": start, "seed": seed, **found}
            add_run(done, line)
            LOG.info("%s", line)


def table(runs: list[dict[str, Any]], constant: float) -> StudyTable:
    """A row for each of the four, per learning rate. constant: log loss of what predicts the rate always."""
    rows = []
    for rate, loss, start in product(sorted({run["rate"] for run in runs}), LOSSES, STARTS):
        some = [run for run in runs if (run["rate"], run["loss"], run["start"]) == (rate, loss, start)]
        if some:
            rows.append([f"{rate:g}", loss, start, *_cells(some, constant)])
    caption = f"Collapsed: a log loss above {constant:.5f}, that of a constant. Mean, lowest to highest"
    return StudyTable(caption, HEAD, rows)


def _cells(runs: list[dict[str, Any]], constant: float) -> list[str]:
    collapsed = sum(run["log_loss"] > constant for run in runs)
    cells = [f"{collapsed} of {len(runs)}"]
    for name, form in (("auc_ctcvr", ".4f"), ("log_loss", ".5f"), ("at_clamp", ".2f")):
        values = [run[name] for run in runs]
        low, mean, high = (format(f(values), form) for f in (min, statistics.mean, max))
        cells.append(f"{mean} [{low}, {high}]")
    return cells


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    folder = Path(args.out) / "collapse"
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--contexts", str(args.contexts), "--ctr", str(CTR), "--cvr", str(CVR)]
    samples = draw_world(folder, options, valid_share=0.2, config="configs/demo.yaml", splits=("train",))
    run_all(args, samples, folder / "runs.jsonl")
    counts = manifest.read(str(samples / "split=train"))["counts"]
    on = machine()
    lead = (
        f"ESMM, embedding 8, towers 64-32, batch 1024, one epoch of {counts['impressions']:,} impressions of "
        f"the additive world, CTR {counts['clicks'] / counts['impressions']:.2%}, CVR of clicks "
        f"{counts['conversions'] / counts['clicks']:.2%}; {on['date']}, {on['processor']}."
    )
    of_valid = manifest.read(str(samples / "split=valid"))["counts"]
    rate = of_valid["conversions"] / of_valid["impressions"]
    constant = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    tables = [table(read_runs(folder / "runs.jsonl"), constant)]
    Study("collapse", "Why others' ESMM ends at 0.5", lead, tables).write(Path(args.out))


if __name__ == "__main__":
    exit_with_message(main)
