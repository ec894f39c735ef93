"""Train models on the same samples, several seeds each, and judge them on the same test half.

    make compare                                           on a world of latent vectors that it draws
    python -m benchmarks.models.compare --models base mmoe --seeds 1 --contexts 2000
    make paper TRAIN=samples/split=train TEST=samples/split=test            on samples of the real logs

Writes compare.html, compare.md and compare.json. What is trained is written to frozen.json, with hashes,
before anything is read of the test half. A second call goes on where the first was stopped. No model is
tuned: all take the options of --config and --set, each those of its file in configs/models beside.
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.machine import machine
from benchmarks.models import summary
from benchmarks.models.page import compare_page
from benchmarks.models.presets import REFERENCE, Preset, read_presets
from benchmarks.models.runs import Compared, Data, Settings, compared
from benchmarks.models.study import read_studies
from benchmarks.models.world import draw_world
from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from cli.version import WRITTEN_BY
from storage.json_files import write_json, write_text

LOG = logging.getLogger("benchmarks.models.compare")
FIRST_SEED = 42
VALID_SHARE = 0.02


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.models.compare", __doc__)
    parser.add_argument("--models", nargs="+", default=[], help="files of configs/models; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each model (%(default)s)")
    parser.add_argument("--out", default="build/compare", help="folder to write (%(default)s)")
    parser.add_argument("--train", help="samples to train on; default: those of a world that is drawn")
    parser.add_argument("--valid", help="samples to validate on while training; default: --test")
    parser.add_argument("--test", help="samples to judge on; with --train")
    parser.add_argument("--truth", help="true probabilities of the test half, where they are known")
    parser.add_argument("--world", choices=("latent", "additive"), default="latent", help="(%(default)s)")
    parser.add_argument("--world-seed", type=int, default=3, help="of the world (%(default)s)")
    parser.add_argument(
        "--contexts", type=int, default=24_000, help="contexts of the world's training half (%(default)s)"
    )
    parser.add_argument("--config", default="configs/demo.yaml", help="options of all models (%(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="an option of all models"
    )
    parser.add_argument("--workers", type=int, default=1, help="Horovod workers of a training")
    args = parser.parse_args(argv)
    if (args.train is None) != (args.test is None):
        parser.error("expected --train and --test together, found one of them.")
    return args


def of_world(args: argparse.Namespace, out: Path) -> Data:
    """Samples of a planted world; the validation is a part of the training half."""
    drawn = ["--world", args.world, "--seed", str(args.world_seed), "--contexts", str(args.contexts)]
    samples = draw_world(out, drawn, VALID_SHARE, args.config)
    train, valid, test = (str(samples / f"split={split}") for split in ("train", "valid", "test"))
    return Data(train, valid, test, str(out / "raw" / "truth_test.csv"))


def freeze(presets: list[Preset], data: Data, settings: Settings, seeds: list[int], out: Path) -> str:
    """Write down what will be trained; the text of it. Another list than that of before starts anew."""
    files = {preset.name: {"sha256": preset.sha256, "settings": preset.settings} for preset in presets}
    content = {
        "models": files,
        "seeds": seeds,
        "config": settings.content,
        "data": vars(data),
        "tuning": "none: no model's options were searched on these samples",
        "written_by": WRITTEN_BY,
    }
    write_json(str(out / "frozen.json"), content)
    return json.dumps(content, indent=2)


def train_all(
    presets: list[Preset], data: Data, settings: Settings, seeds: list[int], out: Path
) -> list[Compared]:
    """All models with the first seed, then with the next: the table is of use before the end."""
    runs: list[Compared] = []
    total = len(presets) * len(seeds)
    begin = time.monotonic()
    for seed in seeds:
        for preset in presets:
            run = compared(preset, seed, data, settings, out)
            runs.append(run)
            aucs = ", ".join(f"{t} {run['metrics'][t]['auc']['value']:.4f}" for t in summary.DIFFERENCES)  # type: ignore[literal-required]
            minutes = (time.monotonic() - begin) / 60
            LOG.info("[%d/%d] %s, seed %d: %s, %.1f min", len(runs), total, preset.name, seed, aucs, minutes)
    order = [preset.name for preset in presets]
    return sorted(runs, key=lambda run: (order.index(run["model"]), run["seed"]))


def write_outcome(runs: list[Compared], presets: list[Preset], frozen: str, note: str, out: Path) -> None:
    """compare.json, compare.md and compare.html."""
    write_json(str(out / "compare.json"), {"machine": machine(), "runs": runs})
    write_text(str(out / "compare.md"), text_of(runs, note))
    about = {preset.name: preset.about for preset in presets}
    studies = read_studies(out)
    write_text(str(out / "compare.html"), compare_page(runs, frozen, about, note, studies))


def text_of(runs: list[Compared], note: str) -> str:
    """The tables as Markdown."""
    found: list[Sequence[summary.Column]] = [summary.COLUMNS]
    if summary.has_truth(runs):
        found += [summary.OF_TRUTH, summary.SHARES]
    tables = [
        summary.markdown(["model", *(c.title for c in columns)], summary.rows(runs, columns))
        for columns in found
    ]
    head = ["run, AUC minus that of " + REFERENCE, "CTR", "CVR, clicked", "CTCVR"]
    tables.append(summary.markdown(head, summary.differences(runs)))
    return "\n\n".join([note, *tables]) + "\n"


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    if args.seeds < 1:
        raise InputError(f"--seeds: expected at least 1, found {args.seeds}.")
    presets = read_presets(args.models)
    out = Path(args.out)
    if args.train:
        data = Data(args.train, args.valid or args.test, args.test, args.truth)
    else:
        data = of_world(args, out)
    settings = Settings(args.config, tuple(args.set), args.workers)
    seeds = list(range(FIRST_SEED, FIRST_SEED + args.seeds))
    frozen = freeze(presets, data, settings, seeds, out)
    runs = train_all(presets, data, settings, seeds, out)
    on = machine()
    rows = runs[0]["metrics"]["ctr"]["rows"]
    note = (
        f"{rows:,} test impressions, {args.seeds} seed(s) per model, none tuned; "
        f"{on['date']}, {on['processor']}, {on['cores']} cores, {args.workers} worker(s)."
    )
    if args.train and not args.truth:
        note = f"{note} {summary.PUBLISHED}"
    write_outcome(runs, presets, frozen, note, out)
    print((out / "compare.md").read_text())
    print(f"written to {out}/compare.html, compare.md and compare.json")


if __name__ == "__main__":
    exit_with_message(main)
