"""The registry's commands: what each is told, what it does, what it says."""

import argparse
import json
import sys
from pathlib import Path

from cli.arguments import CommandParser, iso_day
from cli.option_help import add_help_options
from esmm.registry import deciding, registering
from esmm.registry.champion import champion_of
from esmm.registry.config import PromotionConfig, load_promotion_config
from esmm.registry.evidence import checkpoint_of, read_evaluation
from esmm.registry.place import Place, changing, place_of, reading
from esmm.registry.store import Store, Version
from esmm.registry.text import format_decision, format_versions
from storage.json_files import read_json, write_json

EXIT_NO_CHAMPION = 3

Words = list[str]


def register(words: Words) -> None:
    """Enter a trained and evaluated run as a candidate. Again for the same run and day: the same version.

    The run's checkpoints stay where they are; configuration, metrics and report are copied to MLflow.
    """
    parser = _parser("register", register.__doc__, "--run runs/0923 --day 2026-09-23 --metrics M --parent 3")
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="written by esmm.train")
    parser.add_argument("--day", required=True, type=iso_day, help="the last day it was trained on")
    parser.add_argument("--parent", type=int, metavar="V", help="version it was warm-started from")
    parser.add_argument("--metrics", required=True, metavar="FILE", help="metrics.json of this run")
    parser.add_argument("--json", action="store_true", help="say it as an object: version, run")
    args = _with_changes(parser).parse_args(words)
    run = args.run.resolve()
    metrics = read_evaluation(args.metrics, run)
    candidate = registering.Candidate(run, args.day, args.parent, metrics, checkpoint_of(metrics, run))
    with changing(_place(args), args.name, args.wait, create=True) as store:
        number = registering.register(store, candidate)
    told = json.dumps({"version": number, "run": str(run)})
    print(told if args.json else f"version {number} of {args.name}: {run}")


def decide(words: Words) -> None:
    """Promote a candidate if it passes all gates, else keep the champion. Both end with exit code 0.

    Again for the same version and metrics: the same decision, and nothing changes. --exit-kept is for
    schedulers, which can skip what follows a promotion.
    """
    parser = _parser(
        "decide", decide.__doc__, "--version 4 --day 2026-09-24 --metrics runs/0923/metrics.json"
    )
    _add_version(parser)
    parser.add_argument("--metrics", required=True, metavar="FILE", help="compared with the champion's")
    parser.add_argument("--day", required=True, type=iso_day, help="the day that both were evaluated on")
    parser.add_argument("--config", metavar="YAML", help="file whose section `promotion` is used")
    parser.add_argument("--out", metavar="FILE", help="decision.json; replaced if there")
    parser.add_argument("--plan", metavar="FILE", help="by esmm.day_plan: judges which days were trained on")
    parser.add_argument("--margin", type=float, metavar="AUC", help="instead of promotion.margin's two")
    parser.add_argument("--exit-kept", type=int, default=0, metavar="CODE", help="exit code if kept (0)")
    add_help_options(parser, {"promotion": PromotionConfig})
    args = _with_changes(parser).parse_args(words)
    config = load_promotion_config(args.config, args.margin)
    missing = read_json(args.plan)["missing"] if args.plan else []
    asked = deciding.Asked(args.version, args.metrics, args.day, config, missing)
    with changing(_place(args), args.name, args.wait) as store:
        decision, is_new_one = deciding.decide(store, asked)
    if args.out:
        write_json(args.out, dict(decision))
    print(format_decision(decision))
    if not is_new_one:
        print(f"decided before, at {decision['decided_at']}; nothing was changed")
    if decision["decision"] == deciding.KEPT and args.exit_kept:
        sys.exit(args.exit_kept)


def champion(words: Words) -> None:
    """Say which version is champion and where its run is. Exit code 3: there is none.

    An error (2) where its checkpoint is gone or is another one by now.
    """
    parser = _parser("champion", champion.__doc__, "--json")
    parser.add_argument("--json", action="store_true", help="an object; its values are null without champion")
    args = parser.parse_args(words)
    found = champion_of(_place(args), args.name)
    if args.json:
        print(json.dumps(_told(found)))
    elif found is None:
        print(f"{args.name} has no champion")
    else:
        print(f"version {found.number} of {args.name}, trained up to {found.day}: {found.run}")
    if found is None:
        sys.exit(EXIT_NO_CHAMPION)


def show(words: Words) -> None:
    """List all versions with their aliases, days, AUCs and decisions."""
    args = _parser("show", show.__doc__, "").parse_args(words)
    with reading(_place(args), args.name) as store:
        state = store.read()
        print(
            format_versions(state, {number: _metrics(store, one) for number, one in state.versions.items()})
        )


def rollback(words: Words) -> None:
    """Make the version before the champion the champion again."""
    parser = _parser("rollback", rollback.__doc__, "--champion 4 --reason 'revenue fell at noon'")
    parser.add_argument("--champion", type=int, metavar="V", help="do nothing if another one is champion")
    parser.add_argument("--reason", default="by hand", metavar="TEXT", help="for the version's tags")
    args = _with_changes(parser).parse_args(words)
    with changing(_place(args), args.name, args.wait) as store:
        old, new = deciding.rollback(store, args.champion, args.reason)
    print(f"version {new} of {args.name} is champion again, after version {old}")


def promote(words: Words) -> None:
    """Make a version champion whatever its gates say."""
    parser = _parser("promote", promote.__doc__, "--version 4 --reason 'the gates know nothing of the sale'")
    _add_version(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="for the version's tags")
    args = _with_changes(parser).parse_args(words)
    with changing(_place(args), args.name, args.wait) as store:
        is_new_one = deciding.promote(store, args.version, args.reason)
    print(f"version {args.version} of {args.name} is champion{'' if is_new_one else ' already'}")


COMMANDS = {one.__name__: one for one in (register, decide, champion, show, rollback, promote)}


def _parser(name: str, doc: str | None, example: str) -> CommandParser:
    description = "\n".join(line.strip() for line in (doc or "").splitlines())
    command = f"python -m esmm.registry {name} --registry build/registry {example}".rstrip()
    # --version is one of the model here; `esmm.registry --version` tells the program's
    parser = CommandParser(
        f"esmm.registry {name}", description, f"example:\n  {command}\n", conflict_handler="resolve"
    )
    parser.add_argument(
        "--registry",
        required=True,
        metavar="DIR",
        help="folder with mlflow.db and artifacts/, or the URI of an MLflow server or a database",
    )
    parser.add_argument("--name", default="esmm", help="of the registered model; default: %(default)s")
    parser.set_defaults(lock=None)
    return parser


def _with_changes(parser: CommandParser) -> CommandParser:
    parser.add_argument("--lock", metavar="DIR", help="folder of the lock; required with a URI")
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for the lock; default: %(default)g"
    )
    return parser


def _add_version(parser: CommandParser) -> None:
    parser.add_argument("--version", required=True, type=int, metavar="V", help="of esmm.registry show")


def _place(args: argparse.Namespace) -> Place:
    return place_of(args.registry, args.lock)


def _told(found: Version | None) -> dict[str, object]:
    if found is None:
        return dict.fromkeys(("version", "run", "day", "judged_on", "checkpoint"))
    told = {name: found.tags.get(name) for name in ("run", "day", "judged_on", "checkpoint")}
    return {"version": found.number, **told}


def _metrics(store: Store, version: Version) -> dict[str, float]:
    return dict(store.client.get_run(version.run_id).data.metrics)
