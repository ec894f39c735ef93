"""ESM2 beside ESMM, and the ablations of its paper, on a shop whose clicks have actions.

    python -m benchmarks.models.esm2
    python -m benchmarks.models.esm2 --seeds 1 --contexts 1000 --out /tmp/esm2

Draws the shop's tables with the columns carted and wished, and builds samples whose action is either of
them, the cart alone or the wish list alone. A second call goes on where the first was stopped.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from benchmarks.common.machine import machine
from benchmarks.models import summary
from benchmarks.models.compare import FIRST_SEED
from benchmarks.models.presets import Preset
from benchmarks.models.runs import Compared, Data, Settings, compared
from benchmarks.models.study import Study, StudyTable
from benchmarks.models.summary import COLUMNS, OF_TRUTH
from benchmarks.models.world import keep_apart, run_job
from cli.arguments import CommandParser
from cli.errors import exit_with_message
from cli.log import set_up_logging
from storage import publishing
from storage.json_files import write_text

LOG = logging.getLogger("benchmarks.models.esm2")
SCHEMA, CONFIG = "configs/schemas/shop.yaml", "configs/shop.yaml"
ACTIONS = {"either": ["carted", "wished"], "cart": ["carted"], "wish": ["wished"]}
Change = tuple[str, dict[str, object]]  # which actions it learns from, and other options
CHANGES: dict[str, Change] = {  # of esm2, by name
    "esm2": ("either", {}),
    "only cart": ("cart", {}),
    "only wish": ("wish", {}),
    "dropout 0.2": ("either", {"model.dropout": 0.2}),
    "dropout 0.5": ("either", {"model.dropout": 0.5}),
    "1 hidden layer": ("either", {"model.towers": [80]}),
    "2 hidden layers": ("either", {"model.towers": [200, 80]}),
    "4 hidden layers": ("either", {"model.towers": [360, 200, 80, 40]}),
    "embedding 6": ("either", {"model.embedding_dim": 6}),
    "embedding 36": ("either", {"model.embedding_dim": 36}),
}
ESMM: Change = ("either", {})
SHOWN = (*COLUMNS[:3], *OF_TRUTH[:1], COLUMNS[5])


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    parser = CommandParser("benchmarks.models.esm2", __doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument(
        "--contexts", type=int, default=8000, help="of the training half, 58 impressions each (%(default)s)"
    )
    parser.add_argument("--out", default="build/compare", help="folder of the comparison (%(default)s)")
    return parser.parse_args(argv)


def draw_shop(out: Path, contexts: int) -> dict[str, Data]:
    """Samples of one shop, by what counts as an action."""
    raw = out / "raw"
    drawn = ["--schema", SCHEMA, "--actions", "--contexts", str(contexts)]
    keep_apart(out, drawn)
    if not publishing.is_complete(str(raw)):
        run_job("jobs.make_demo_logs", *drawn, "--out", str(raw))
    return {kind: _samples(out, raw, kind) for kind in ACTIONS}


def _samples(out: Path, raw: Path, kind: str) -> Data:
    """Validation and test are the same half: nothing is chosen by it."""
    folder, schema = out / kind, yaml.safe_load(Path(SCHEMA).read_text())
    schema["tables"]["actions"] = ACTIONS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(str(folder / "schema.yaml"), yaml.safe_dump(schema))
    for split in ("train", "test"):
        target = folder / f"split={split}"
        if not publishing.is_complete(str(target)):
            tables = ["--impressions", f"{raw}/impressions_{split}", "--contexts", f"{raw}/contexts_{split}"]
            options = ["--schema", str(folder / "schema.yaml"), "--config", CONFIG, "--out", str(target)]
            run_job("jobs.build_samples", *tables, *options)
    train, test = (str(folder / f"split={split}") for split in ("train", "test"))
    return Data(train, test, test, str(raw / "truth_test.csv"))


def preset(name: str, options: dict[str, object]) -> Preset:
    """ESMM, or ESM2 with some options."""
    model = "esmm" if name == "esmm" else "esm2"
    settings = tuple(f"{key}={json.dumps(value)}" for key, value in {"model.name": model, **options}.items())
    digest = hashlib.sha256("\n".join(settings).encode()).hexdigest()
    return Preset(name, "", settings, digest)


def run_all(data: dict[str, Data], seeds: Sequence[int], out: Path) -> list[Compared]:
    """ESMM first, as the others are compared with it."""
    settings = Settings(CONFIG, (), 1)
    found = []
    for seed in seeds:
        for name, (actions, options) in {"esmm": ESMM, **CHANGES}.items():
            one = preset(name, options)
            folder = replace(one, name=name.replace(" ", "_"))
            run = compared(folder, seed, data[actions], settings, out)
            run["model"] = name
            found.append(run)
            LOG.info("%s, seed %d: CVR %.4f", name, seed, run["metrics"]["cvr"]["auc"]["value"])
    return found


def table(runs: list[Compared]) -> StudyTable:
    """A row for ESMM and for each change of ESM2."""
    head = ["model", *(column.title for column in SHOWN)]
    return StudyTable("Mean ± deviation over seeds", head, summary.rows(runs, SHOWN))


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    folder = Path(args.out) / "esm2"
    data = draw_shop(folder, args.contexts)
    runs = run_all(data, range(FIRST_SEED, FIRST_SEED + args.seeds), folder)
    on = machine()
    lead = (
        f"The shop of jobs.make_demo_logs --actions, {args.contexts:,} sessions to train on, "
        f"{runs[0]['metrics']['ctr']['rows']:,} test impressions, {args.seeds} seed(s), none tuned; esm2 has "
        f"three hidden layers, embedding 18 and no dropout, and either action counts; {on['date']}, "
        f"{on['processor']}, {on['cores']} cores."
    )
    Study("esm2", "ESM2 and its ablations", lead, [table(runs)]).write(Path(args.out))


if __name__ == "__main__":
    exit_with_message(main)
