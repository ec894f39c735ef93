"""Horovod's workers as the tasks of a Spark application (docs/elastic.md).

Spark finds the places and starts the processes. Neither samples nor gradients go through it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import horovod.spark
from horovod.runner.common.util.timeout import TimeoutException
from pyspark.sql import SparkSession

from cli.errors import InputError, exit_with_message
from esmm.workers.process import run
from esmm.workers.world import AgreedError, World

EXIT_WORKER_FAILED = 1
PROJECT = Path(__file__).resolve().parents[2]

Command = Callable[[World], None]


def run_on_spark(command: Command, num_workers: int) -> None:
    """Run a command with that many Spark tasks at once, in the application that spark-submit has described.

    command: is sent to the executors, so it must be one that pickle takes. Ends the process as
    `process.run` does, but with 1 where a worker was lost or failed on its own.
    """
    exit_with_message(lambda: _run_on_spark(command, num_workers))


def _run_on_spark(command: Command, num_workers: int) -> None:
    spark = SparkSession.builder.appName("esmm.train").getOrCreate()
    try:
        messages = horovod.spark.run(
            _work,
            args=(command, os.getcwd()),
            num_proc=num_workers,
            env={"PYTHONPATH": str(PROJECT)},
            stdout=sys.stdout,
            stderr=sys.stderr,
            verbose=0,
        )
    except TimeoutException as error:
        raise InputError(
            f"--num-workers: expected {num_workers} Spark tasks to run at once, found fewer within "
            "HOROVOD_SPARK_START_TIMEOUT (600 s). Ask Spark for more executors or cores, or fewer workers."
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        print(f"error: training has failed, its messages are above: {reason}", file=sys.stderr)
        sys.exit(EXIT_WORKER_FAILED)
    finally:
        spark.stop()
    if messages[0]:
        raise InputError(messages[0])


def _work(command: Command, folder: str) -> str | None:
    """A worker, in a process beside a Spark task. What is wrong with the input, where all have found it."""
    os.chdir(folder)
    messages: list[str] = []

    def main(world: World) -> None:
        try:
            command(world)
        except AgreedError as error:
            messages.append(str(error))

    run(main)
    return messages[0] if messages else None
