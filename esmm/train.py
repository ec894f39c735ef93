"""Train ESMM on samples, on this machine or as one of several workers.

    python -m esmm.train --config configs/demo.yaml --train samples/split=train --valid samples/split=test \\
        --run runs/demo --set train.epochs=2
    horovodrun -np 2 -H localhost:2 python -m esmm.train ...     two workers share each step
    python -m esmm.train ... --run runs/demo --resume            go on where it was stopped
    python -m esmm.train --train samples/ds=2026-11-0[1-7] ...   several sample sets as one
    spark-submit ... esmm/train.py --launcher spark --num-workers 2 ...      two workers on a Spark cluster

exit codes:
    0    the run is complete
    2    something given is wrong, or the disk is full: one message says what
    143  stopped by SIGTERM, after the step under way and a checkpoint: go on with --resume
"""

import sys
from functools import partial
from pathlib import Path

from cli.arguments import CommandParser
from cli.option_help import add_help_options
from esmm.config import RUN_SECTIONS
from esmm.training_run import TrainOptions, train
from esmm.workers.environment import is_elastic
from esmm.workers.process import run


def parse_arguments(argv: list[str]) -> TrainOptions:
    """The command line; see the top of this file."""
    parser = CommandParser("esmm.train", __doc__)
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument(
        "--train",
        required=True,
        nargs="+",
        metavar="DIR",
        help="folders of samples to train on, such as days",
    )
    parser.add_argument("--valid", required=True, help="folder of samples to validate on after each epoch")
    parser.add_argument(
        "--run", type=Path, required=True, help="folder to write: configuration, log, checkpoints"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", dest="settings", help="change one option"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a run; a complete one stays until the new one is (--resume: goes on with that)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the run's newest good checkpoint, if it has one"
    )
    parser.add_argument(
        "--warm-start",
        type=Path,
        metavar="RUN",
        help="start from what fits of another run's newest checkpoint",
    )
    parser.add_argument("--launcher", choices=["spark"], help="let Spark start the workers (docs/elastic.md)")
    parser.add_argument("--num-workers", type=int, default=0, metavar="N", help="how many of them")
    add_help_options(parser, RUN_SECTIONS)
    options = TrainOptions(**vars(parser.parse_args(argv)), words=argv)
    if options.launcher and options.num_workers < 1:
        parser.error("--launcher: expected --num-workers N with it, 1 or more. Add it.")
    return options


def main(argv: list[str]) -> None:
    """Train in this process, also on when elastic workers come and go; or let Spark start the workers."""
    options = parse_arguments(argv)
    command = partial(train, options=options)
    if options.launcher == "spark":
        from esmm.workers.spark import run_on_spark  # imports Spark

        run_on_spark(command, options.num_workers)
    elif is_elastic():
        from esmm.workers.elastic import run_elastic  # imports Horovod

        run_elastic(command, partial(train, options=options.resumed()))
    else:
        run(command)


if __name__ == "__main__":
    main(sys.argv[1:])
