"""Draw demo logs from a planted world whose true probabilities are known: Ali-CCP's, or those of a shop.

    python -m jobs.make_demo_logs --out data/raw --contexts 8000 --seed 1
    python -m jobs.make_demo_logs --world latent --out data/latent --contexts 24000
    python -m jobs.make_demo_logs --day 3 --out raw/ds=2026-11-03
    python -m jobs.make_demo_logs --schema configs/schemas/shop.yaml --format parquet --out data/shop

Equal options give equal bytes, whatever the number of processes. With --day the logs are those of one day,
whole, of a world that drifts from day to day (jobs/demo_logs/days.py): sample_skeleton.csv,
common_features.csv and truth.csv. Days of equal --seed and --contexts are days of one world.
"""

import argparse
import os
from dataclasses import asdict, replace
from typing import Any

from cli.arguments import CommandParser
from cli.errors import InputError, exit_with_message
from cli.log import set_up_logging
from cli.version import WRITTEN_BY
from jobs.demo_logs.chunks import SPLITS, Sampler, Split, calibrate
from jobs.demo_logs.days import whole_day
from jobs.demo_logs.drawing import draw_in_order, make_tasks, with_progress, write_files
from jobs.demo_logs.latent import build_latent_world
from jobs.demo_logs.options import ADDITIVE, LATENT, DayOptions, Options, ShopOptions
from jobs.demo_logs.plan import draw_plan
from jobs.demo_logs.world import PlantedWorld, build_world
from jobs.shop_logs import files as shop_files
from schemas import schema_file
from storage import outputs, staging
from storage.json_files import write_json

SUMMARY_NAME = "demo_logs.json"
OUTPUT = outputs.Kind(
    content="demo logs",
    manifest=SUMMARY_NAME,
    keys=frozenset(("options", "splits")),
    names=rf"(sample_skeleton|common_features|truth)(_train|_test)?\.csv|{shop_files.NAMES}",
)
TEXT, PARQUET = "text", "parquet"
FORMAT_OF = {"ali_ccp": TEXT, "shop": PARQUET}  # by the name of the schema whose logs are drawn
WORLDS = {ADDITIVE: build_world, LATENT: build_latent_world}  # of Ali-CCP's fields
OF_TEXT, OF_SHOP = Options(), ShopOptions(ctr=0.05, cvr=0.18)
OF_DAY = DayOptions()
OF_LATENT = Options(ctr=0.05, cvr=0.10, world=LATENT)


def plan_logs(options: Options | DayOptions) -> tuple[PlantedWorld, tuple[Split, ...]]:
    """The world, and what is drawn of it: two halves, or one whole day."""
    if isinstance(options, DayOptions):
        world, day = whole_day(options.seed, options.contexts, options.day)
        return world, (day,)
    world = WORLDS[options.world](options.seed, options.contexts)
    contexts = (options.contexts, options.contexts // 2)
    plans = [draw_plan(options.seed, number, half, world) for number, half in enumerate(contexts)]
    return world, tuple(Split(name, f"_{name}", plan) for name, plan in zip(SPLITS, plans, strict=True))


def make_logs(out: str, options: Options | DayOptions, processes: int, overwrite: bool) -> dict[str, Any]:
    """Draw the logs into the folder `out`, which appears whole or not at all; returns its summary.

    The mean CTR and CVR are those of the options, in the training half or on each day anew.
    """
    options.check()
    outputs.refuse_taken(out, OUTPUT, overwrite)
    world, splits = plan_logs(options)
    intercepts = calibrate(Sampler(world, splits[0].plan, options.list_scale), options.ctr, options.cvr)
    tasks = make_tasks(splits)
    with staging.beside(out) as staged:
        results = draw_in_order(tasks, processes, (world, splits, options.list_scale, intercepts))
        counts = write_files(staged, with_progress(results, len(tasks)))
        summary: dict[str, Any] = {
            "options": asdict(options),
            "world": describe_world(world, splits),
            "splits": counts,
            "written_by": WRITTEN_BY,
        }
        write_json(f"{staged}/{SUMMARY_NAME}", summary)
        outputs.publish(staged, out, OUTPUT, overwrite)
    return summary


def make_shop(out: str, options: ShopOptions, overwrite: bool) -> dict[str, Any]:
    """Draw both halves of the shop's logs into the folder `out`, whole or not at all; returns its summary."""
    options.check()
    outputs.refuse_taken(out, OUTPUT, overwrite)
    with staging.beside(out) as staged:
        drawn = shop_files.write_shop(staged, **asdict(options))
        summary: dict[str, Any] = {"options": asdict(options), **drawn, "written_by": WRITTEN_BY}
        write_json(f"{staged}/{SUMMARY_NAME}", summary)
        outputs.publish(staged, out, OUTPUT, overwrite)
    return summary


def describe_world(world: PlantedWorld, splits: tuple[Split, ...]) -> dict[str, int]:
    """How many of each kind there are."""
    kinds = ("categories", "shops", "brands", "nodes")
    sizes = {kind: int(size) for kind, size in zip(kinds, world.sizes, strict=True)}
    largest = largest_id(world, splits)
    return {"users": world.num_users, "items": world.num_items, **sizes, "largest_id": largest}


def largest_id(world: PlantedWorld, splits: tuple[Split, ...]) -> int:
    """The last id of the last field (position), or of an item that came after day 1."""
    of_items = [int(split.item_id.max()) for split in splits if split.item_id is not None]
    return max([int(world.id_start[-1] + 2 * world.id_stride), *of_items])


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the top of this file."""
    default, latent, of_shop = OF_TEXT, OF_LATENT, OF_SHOP
    parser = CommandParser("jobs.make_demo_logs", __doc__)
    parser.add_argument("--out", required=True, help="folder to make")
    schema_file.add_option(parser)
    parser.add_argument(
        "--format",
        choices=(TEXT, PARQUET),
        help="default: text for ali_ccp, parquet for shop; there is no other",
    )
    parser.add_argument(
        "--world",
        choices=WORLDS,
        help="additive: most effects add up, as in the demo (default); latent: the logits are products of "
        "hidden vectors of users and items, on which models differ more; for ali_ccp",
    )
    parser.add_argument(
        "--actions",
        action="store_true",
        help="with columns carted and wished, what leads from clicks to conversions; for shop",
    )
    parser.add_argument(
        "--day",
        type=int,
        metavar="N",
        help="one day's logs, whole, of a world that drifts from day 1 on: effects, and items that come and "
        "go; for the additive world of ali_ccp",
    )
    parser.add_argument(
        "--contexts",
        type=int,
        help="contexts of the training half, 57.9 impressions each on average; the test half has half "
        f"as many (default {default.contexts}: about 460,000 impressions for training, as text 230 MB). "
        f"With --day those of the day, {OF_DAY.contexts}",
    )
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="equal seeds, equal bytes (%(default)s)"
    )
    parser.add_argument(
        "--ctr",
        type=float,
        help=f"clicks per impression ({default.ctr}, latent {latent.ctr}, shop {of_shop.ctr})",
    )
    parser.add_argument(
        "--cvr",
        type=float,
        help=f"conversions per click (default {default.cvr}, latent {latent.cvr}, shop {of_shop.cvr}; real "
        "data have 0.0055, with which a demo would hold hardly any conversion)",
    )
    parser.add_argument(
        "--list-scale",
        type=float,
        default=default.list_scale,
        help="scales the lengths of the history lists, in ali_ccp 608 entries on average (%(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=num_cores(), help="for text; default: all cores, %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace demo logs that are already there")
    return parser.parse_args(argv)


def num_cores() -> int:
    return len(os.sched_getaffinity(0))


def format_for(schema: str, wanted: str | None) -> str:
    """The format of the logs of a schema, of which there are two. wanted: None for that which it has."""
    if schema not in FORMAT_OF:
        raise InputError(
            f"--schema: this command draws the two worlds that it knows, {' and '.join(FORMAT_OF)}, found a "
            f"schema named {schema}. Logs of one's own need no drawing: docs/own_logs.md."
        )
    if wanted not in (None, FORMAT_OF[schema]):
        raise InputError(f"--format: expected {FORMAT_OF[schema]} for schema {schema}, found {wanted}.")
    return FORMAT_OF[schema]


def read_options(args: argparse.Namespace) -> Options | DayOptions | ShopOptions:
    """What the logs depend on, by the command line; `ShopOptions` for tables."""
    kind = format_for(schema_file.read(args.schema).name, args.format)
    if kind == PARQUET and args.world:
        raise InputError(f"--world {args.world}: expected none, as the shop has one world. Leave it out.")
    if kind == TEXT and args.actions:
        raise InputError("--actions: the text of Ali-CCP has no place for them; expected a schema of tables.")
    if args.day is not None and (kind == PARQUET or args.world == LATENT):
        found = "the shop's" if kind == PARQUET else f"--world {LATENT}"
        raise InputError(f"--day: expected the additive world of ali_ccp, found {found}; leave one out.")
    names = ("contexts", "seed", "list_scale", "ctr", "cvr")
    told: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if kind == PARQUET:
        return replace(OF_SHOP, **told, actions=args.actions)
    if args.day is not None:
        return replace(OF_DAY, **told, day=args.day)
    return replace(OF_LATENT if args.world == LATENT else OF_TEXT, **told)


def main() -> None:
    """The command; see the top of this file."""
    args = parse_arguments()
    set_up_logging()
    if args.processes < 1:
        raise InputError(f"--processes: expected at least 1, found {args.processes}.")
    options = read_options(args)
    if isinstance(options, ShopOptions):
        summary = make_shop(args.out, options, args.overwrite)
    else:
        summary = make_logs(args.out, options, args.processes, args.overwrite)
    for split, counts in summary["splits"].items():
        megabytes = sum(size for name, size in counts.items() if name.endswith("_bytes")) / 1e6
        print(
            f"{args.out} {split}: {counts['rows']:,} impressions, {counts['contexts']:,} contexts, "
            f"{counts['clicks']:,} clicks, {counts['conversions']:,} conversions, {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    exit_with_message(main)
